"""Weights of a checkpoint into the model that trains, under the names that the checkpoint gives them.

``save_pretrained`` of transformers writes some models, those with pictures and mixtures of experts among them, under
other names than their parameters have, and ``from_pretrained`` turns them back. The trainer of transformers (5.23)
loads a checkpoint's file without that: it warns of "missing keys" and goes on with the weights that the model happens
to have. A run that resumes so begins again from its start, with the optimizer of its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rvpo.errors import EngineError


@contextmanager
def of_checkpoint(trainer: Any, folder: str) -> Iterator[None]:
    """Within the context, what a trainer of transformers does not find in a checkpoint is loaded after all.

    Set on the object: the method that warns of missing names is the only one that hears of them.
    """

    def loaded(result: Any) -> None:
        if not load_missing(trainer.model, result.missing_keys, folder):
            warn(result)

    warn = trainer._issue_warnings_after_load
    trainer._issue_warnings_after_load = loaded
    try:
        yield
    finally:
        del trainer._issue_warnings_after_load


def load_missing(model: Any, missing: Sequence[str], folder: str) -> bool:
    """Load the weights of a checkpoint again if some were not found in it, by way of ``from_pretrained``.

    Args:
        model: that trains, whole on this process.
        missing: names that were not found when the file was loaded as it is.
        folder: of the checkpoint.

    Returns:
        Whether all weights were loaded again; False if nothing was missing but names of tied weights.

    Raises:
        EngineError: weights are missing from the checkpoint, whatever they are called.
    """
    if not _untied(model, missing):
        return False
    dtype = next(model.parameters()).dtype
    loaded = type(model).from_pretrained(folder, config=model.config, dtype=dtype, output_loading_info=True)
    saved, information = loaded
    lost = sorted(information["missing_keys"]) or _untied(
        model, model.load_state_dict(saved.state_dict(), strict=False).missing_keys
    )
    if lost:
        raise EngineError(
            f"the checkpoint {folder} lacks the weights of {', '.join(lost[:3])}{' and others' if lost[3:] else ''} "
            f"({len(lost)} of {len(model.state_dict())}); expected all of them: resume from another checkpoint, or "
            "with the version of transformers that wrote it"
        )
    model.tie_weights()
    return True


def _untied(model: Any, missing: Sequence[str]) -> list[str]:
    """Return the names that share no memory with a weight that was found."""
    state = model.state_dict()
    found = {value.data_ptr() for name, value in state.items() if name not in set(missing)}
    ignored = set(model._keys_to_ignore_on_save or ())
    return [name for name in missing if name in state and name not in ignored and state[name].data_ptr() not in found]
