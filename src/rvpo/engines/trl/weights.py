"""Load the weights of a checkpoint into the trained model, also if their names in the file differ.

For some models, such as those with pictures and mixtures of experts, ``save_pretrained`` of transformers writes weights
under other names than the parameters have, and ``from_pretrained`` converts them back. The trainer of transformers
(5.23) loads a checkpoint's file without this conversion: it warns of "missing keys" and continues with the weights that
the model has. So a resumed run would train the initial weights with the optimizer state of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rvpo.errors import EngineError


@contextmanager
def of_checkpoint(trainer: Any, folder: str) -> Iterator[None]:
    """Within the context, weights that a trainer of transformers does not find in a checkpoint are loaded, too.

    The method that warns of missing names is replaced on the object, because only this method gets the names.
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
    """Load the weights of a checkpoint again with ``from_pretrained``, if some were not found in it.

    Args:
        model: model that is trained, whole on this process.
        missing: names that were not found when the file was loaded without a conversion.
        folder: folder of the checkpoint.

    Returns:
        Whether all weights were loaded again; False if only names of tied weights were missing.

    Raises:
        EngineError: weights are missing from the checkpoint under any name.
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
    """Return the missing names that are not tied to a weight that was found."""
    state = model.state_dict()
    found = {value.data_ptr() for name, value in state.items() if name not in set(missing)}
    ignored = set(model._keys_to_ignore_on_save or ())
    return [name for name in missing if name in state and name not in ignored and state[name].data_ptr() not in found]
