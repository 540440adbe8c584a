"""Start of the guest. Its work lies in modules, because Python keeps the compiled form of modules alone."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - in haste

from guest import supervise  # type: ignore[import-not-found]

supervise.main()
