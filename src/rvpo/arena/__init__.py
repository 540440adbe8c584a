"""All rules in all fields, side by side: ``rvpo arena``."""
