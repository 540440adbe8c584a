"""``rvpo.skyrl.RVPOMixin``, a base class to put before SkyRL's ``RayPPOTrainer``. See docs/engines/skyrl.md."""

from rvpo.engines.skyrl import RVPOMixin

__all__ = ["RVPOMixin"]
