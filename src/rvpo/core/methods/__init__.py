"""Every method, one file each: the equation, its limits and failure cases, its options, state and call.

``base.py`` says what a method is, ``registry.py`` how it is written down and found by name, ``function.py`` how a plain
function becomes one.
"""
