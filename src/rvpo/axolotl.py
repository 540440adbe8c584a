"""axolotl's plug-in: ``plugins: [rvpo.axolotl.RVPOPlugin]`` and a section ``rvpo:``. See docs/engines/axolotl.md."""

from typing import TYPE_CHECKING, Any

from rvpo.engines.axolotl.plugin import RVPOArgs, RVPOPlugin
from rvpo.engines.axolotl.section import RVPOTrainingArgs

if TYPE_CHECKING:
    from rvpo.engines.axolotl.trainer import RVPOTrainer

__all__ = ["RVPOArgs", "RVPOPlugin", "RVPOTrainer", "RVPOTrainingArgs"]


def __getattr__(name: str) -> Any:
    """Load the trainer when axolotl builds it: axolotl's modules must be loaded after the plug-ins."""
    if name == "RVPOTrainer":
        from rvpo.engines.axolotl.trainer import RVPOTrainer

        return RVPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
