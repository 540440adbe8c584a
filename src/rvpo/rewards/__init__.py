"""Reward channels. A channel is a callable ``f(completions, **columns) -> list[float | None]``; None = missing."""
