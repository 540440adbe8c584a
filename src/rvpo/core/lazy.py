"""torch and NumPy, imported when the first number is computed.

A config, a record or a list of methods needs no tensor. Logs can therefore be read and diagnosed where torch is not
installed, and ``rvpo diagnose`` does not wait for its import. NumPy only makes small batches faster
(:mod:`rvpo.core.small`): torch works without it, and so does the algorithm.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor

    numpy: Any
else:

    class _Module:
        """Takes the place of a module, and keeps each attribute after its first use."""

        def __init__(self, module: str) -> None:
            self._module = module

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):  # inspect and doctest look for these in everything that a module holds
                raise AttributeError(name)
            value = getattr(importlib.import_module(self._module), name)
            vars(self)[name] = value
            return value

    class _TensorType(type):
        """Makes ``isinstance(x, Tensor)`` work. Nothing is a tensor as long as torch is not imported."""

        def __instancecheck__(cls, instance: object) -> bool:
            loaded = sys.modules.get("torch")
            return loaded is not None and isinstance(instance, loaded.Tensor)

    class Tensor(metaclass=_TensorType):
        """Takes the place of ``torch.Tensor`` in annotations and in ``isinstance``."""

    torch = _Module("torch")
    numpy = _Module("numpy")


@cache
def has_numpy() -> bool:
    """Return whether torch can share arrays with NumPy. It cannot if one was built for another version of the other."""
    try:
        torch.zeros(1).numpy()
    except RuntimeError:
        return False
    return True
