"""The algorithm: torch and the standard library only, no engine."""

from rvpo.core.adaptive import AdaptiveK
from rvpo.core.advantages import advantages, compute
from rvpo.core.channels import Channels
from rvpo.core.config import AdvantageConfig
from rvpo.core.metrics import Advantages
from rvpo.core.schedules import Schedule

__all__ = ["AdaptiveK", "AdvantageConfig", "Advantages", "Channels", "Schedule", "advantages", "compute"]
