"""The quickstart: RVPO and GDPO train a small built-in model on a tool-calling task whose rewards conflict.

``rvpo quickstart`` calls :func:`run`. It downloads nothing and needs no GPU. It needs the extras ``trl`` and ``plot``:
``pip install 'rvpo[trl,plot]'``. The task is in ``task``, all settings are in ``cells``, one training run is in
``train``, and the conclusions from the runs are in ``report``.
"""

from rvpo.quickstart.cells import CELLS, EVALUATED_CELLS, Settings, contenders
from rvpo.quickstart.runner import Results, run

__all__ = ["CELLS", "EVALUATED_CELLS", "Results", "Settings", "contenders", "run"]
