"""``rvpo.tinker.install(config, …)``, in a script of tinker-cookbook before ``train.main``. See docs/engines/tinker.md."""

from rvpo.engines.tinker import install

__all__ = ["install"]
