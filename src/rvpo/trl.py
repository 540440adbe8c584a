"""The two names that a TRL script changes: ``from rvpo.trl import RVPOConfig, RVPOTrainer``."""

from rvpo.engines.trl.config import RVPOConfig
from rvpo.engines.trl.trainer import RVPOTrainer

__all__ = ["RVPOConfig", "RVPOTrainer"]
