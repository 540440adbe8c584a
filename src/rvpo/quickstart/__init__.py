"""The embedded default: watch RVPO and GDPO train a small built-in model on a tool-calling task whose rewards conflict.

``rvpo quickstart`` calls :func:`run`. No downloads, no GPU; needs the extras ``trl`` and ``plot``:
``pip install 'rvpo[trl,plot]'``. The task is in ``task``, every setting in ``cells``,
one training run in ``train``, and what is concluded from the runs in ``report``.
"""

from rvpo.quickstart.cells import CELLS, EVALUATED_CELLS, Settings, contenders
from rvpo.quickstart.runner import Results, run

__all__ = ["CELLS", "EVALUATED_CELLS", "Results", "Settings", "contenders", "run"]
