"""Names for slime's arguments: ``rvpo.slime.post_process``, ``rvpo.slime.keep_ranked``."""

from rvpo.engines.slime import keep_ranked, post_process

__all__ = ["keep_ranked", "post_process"]
