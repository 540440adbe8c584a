"""Compare all rules in all fields: ``rvpo arena``."""
