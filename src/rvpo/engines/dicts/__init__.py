"""Shared code of engines that get one dict of rewards per completion: slime, prime-rl, NeMo RL, rLLM, SkyRL, Tinker.

``options.py`` reads the options that a user writes under ``rvpo:``. ``rewards.py`` turns the dicts of a batch into
advantages with :class:`rvpo.Aggregator`, and saves the method's memory. The modules next to this package handle one
engine each: they read dicts and group ids, return advantages, and refuse settings with which the engine would change
the advantages afterwards.
"""
