"""Judges: who decides whether a completion meets a criterion. The only part of the package with a network."""
