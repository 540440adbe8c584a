"""The algorithm. It needs only torch and the standard library, and imports torch with the first computed number."""

from rvpo.core.advantages import advantages, compute
from rvpo.core.channels import Channels
from rvpo.core.config import AdvantageConfig
from rvpo.core.methods.adaptive_k import AdaptiveK
from rvpo.core.methods.base import Batch, Method, Outcome
from rvpo.core.methods.corr_grpo import CorrGRPO
from rvpo.core.methods.ctwa import CTWA
from rvpo.core.methods.dara import DARA
from rvpo.core.methods.dvao import DVAO
from rvpo.core.methods.gd2po import GD2PO
from rvpo.core.methods.gdpo import GDPO
from rvpo.core.methods.grpo import GRPO
from rvpo.core.methods.lagrangian import Lagrangian
from rvpo.core.methods.lift import LIFT
from rvpo.core.methods.lift_z import LIFTZ
from rvpo.core.methods.mgda import MGDA
from rvpo.core.methods.riskpo import RiskPO
from rvpo.core.methods.rvpo import RVPO, HardMin, RVPOExplicit
from rvpo.core.methods.sa_mrpo import SAMRPO
from rvpo.core.methods.saw import SAW
from rvpo.core.methods.tchebycheff import SmoothTchebycheff, Tchebycheff
from rvpo.core.methods.verpo import VeRPO
from rvpo.core.metrics import Advantages
from rvpo.core.schedules import Cosine, Linear, Schedule

__all__ = [
    "CTWA",
    "DARA",
    "DVAO",
    "GD2PO",
    "GDPO",
    "GRPO",
    "LIFT",
    "LIFTZ",
    "MGDA",
    "RVPO",
    "SAMRPO",
    "SAW",
    "AdaptiveK",
    "AdvantageConfig",
    "Advantages",
    "Batch",
    "Channels",
    "CorrGRPO",
    "Cosine",
    "HardMin",
    "Lagrangian",
    "Linear",
    "Method",
    "Outcome",
    "RVPOExplicit",
    "RiskPO",
    "Schedule",
    "SmoothTchebycheff",
    "Tchebycheff",
    "VeRPO",
    "advantages",
    "compute",
]
