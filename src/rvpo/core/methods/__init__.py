"""All methods, one file each: the equation, its limits and failure cases, its options, state and call.

``base.py`` defines what a method is. ``registry.py`` finds methods by name and writes them as text. ``function.py``
turns a plain function into a method.
"""
