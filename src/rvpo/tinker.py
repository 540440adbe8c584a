"""Call ``rvpo.tinker.install(config, …)`` in a script of the cookbook, before its ``main``: docs/engines/tinker.md."""

from rvpo.engines.tinker import install

__all__ = ["install"]
