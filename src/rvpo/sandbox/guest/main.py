"""Start of the guest. Its work lies in a module, because Python keeps the compiled form of modules alone."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import supervise  # noqa: E402

supervise.main()
