"""The algorithm: torch and the standard library only, no engine."""

from rvpo.core.advantages import Advantages, advantages, compute
from rvpo.core.config import AdvantageConfig
from rvpo.core.schedules import Schedule

__all__ = ["AdvantageConfig", "Advantages", "Schedule", "advantages", "compute"]
