"""The algorithm: torch and the standard library only, no engine."""

from rvpo.core.adaptive import AdaptiveK
from rvpo.core.advantages import advantages, compute
from rvpo.core.config import AdvantageConfig
from rvpo.core.diagnostics import Advantages
from rvpo.core.run_channels import Channels
from rvpo.core.schedules import Schedule

__all__ = ["AdaptiveK", "AdvantageConfig", "Advantages", "Channels", "Schedule", "advantages", "compute"]
