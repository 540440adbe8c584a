"""Adapters to training engines. An adapter moves arrays; the arithmetic is in ``rvpo.core``."""
