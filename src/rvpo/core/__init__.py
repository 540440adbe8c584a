"""The algorithm: torch and the standard library only, no engine."""

from rvpo.core.advantages import advantages, compute
from rvpo.core.config import AdvantageConfig
from rvpo.core.diagnostics import Advantages
from rvpo.core.schedules import Schedule

__all__ = ["AdvantageConfig", "Advantages", "Schedule", "advantages", "compute"]
