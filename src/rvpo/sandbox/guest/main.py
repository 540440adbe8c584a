"""Start of the guest. Its work lies in modules, because Python keeps the compiled form of modules alone."""

import sys
from pathlib import PurePath

sys.path.insert(0, str(PurePath(__file__).parent.parent))

from guest import supervise  # type: ignore[import-not-found]

sys.path.pop(0)
supervise.main()
