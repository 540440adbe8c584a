"""Names for a TRL script: ``from rvpo.trl import RVPOConfig, RVPOTrainer``.

``RVPOMixin`` is for your own trainers. ``DiagnosisCallback`` warns of neglected rewards in any ``GRPOTrainer``.
``BenchmarkCallback`` runs benchmarks during training.
"""

from typing import TYPE_CHECKING, Any

from rvpo.extras import needs_extra

with needs_extra("trl", "RVPOTrainer and RVPOConfig", "trl"):
    from rvpo.engines.trl.alarm import DiagnosisCallback
    from rvpo.engines.trl.config import RVPOConfig
    from rvpo.engines.trl.trainer import RVPOMixin, RVPOTrainer

if TYPE_CHECKING:
    from rvpo.engines.trl.evaluation import BenchmarkCallback

__all__ = ["BenchmarkCallback", "DiagnosisCallback", "RVPOConfig", "RVPOMixin", "RVPOTrainer"]


def __getattr__(name: str) -> Any:
    """Load ``BenchmarkCallback`` on first use: it needs the extra ``eval``, the trainer does not."""
    if name == "BenchmarkCallback":
        with needs_extra("eval", "evaluations"):
            from rvpo.engines.trl.evaluation import BenchmarkCallback

        return BenchmarkCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
