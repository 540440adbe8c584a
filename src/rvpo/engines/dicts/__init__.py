"""What engines share whose rewards arrive as one dict per completion: slime, prime-rl, NeMo RL, rLLM, SkyRL, Tinker.

``options.py`` reads what a user writes under ``rvpo:``; ``rewards.py`` turns the dicts of a batch into advantages
through :class:`rvpo.Aggregator`, and keeps what is remembered. The modules next to this package know one engine each:
they fetch dicts and group ids, hand advantages on, and refuse what the engine would do to them afterwards.
"""
