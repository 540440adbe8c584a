"""Start of the guest. The work is done in modules, because Python caches the compiled form only of modules."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - faster

from guest import supervise  # type: ignore[import-not-found]

supervise.main()
