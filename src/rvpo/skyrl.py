"""``rvpo.skyrl.RVPOMixin``, in front of SkyRL's ``RayPPOTrainer``. See docs/engines/skyrl.md."""

from rvpo.engines.skyrl import RVPOMixin

__all__ = ["RVPOMixin"]
