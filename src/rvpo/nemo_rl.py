"""Call ``rvpo.nemo_rl.install()`` in a launcher of NeMo RL, before its ``main``. See docs/engines/nemo_rl.md."""

from rvpo.engines.nemo_rl import install

__all__ = ["install"]
