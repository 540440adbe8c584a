"""Prompt records as supervised examples, for a warm start before reinforcement learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rvpo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def render_sft(dataset: Dataset) -> Dataset:
    """Turn prompt records into TRL's prompt-completion rows. The answer becomes the completion.

    The prompt stays as the RL run sees it. Chat prompts get the completion
    ``[{"role": "assistant", "content": answer}]``. Text prompts get the answer as text, because TRL needs both columns
    in the same form. Other columns are left out.

    Args:
        dataset: records from :func:`rvpo.data.load_prompts`, with the columns ``prompt`` and ``answer``.

    Returns:
        A dataset with the columns ``prompt`` and ``completion``, in the same order.

    Raises:
        DataError: a column is absent or the dataset has no rows.

    Example:
        >>> warm = render_sft(load_prompts("rlla_sft.json"))  # doctest: +SKIP
        >>> SFTTrainer(model, train_dataset=warm)  # doctest: +SKIP
    """
    from datasets import Dataset

    if absent := {"prompt", "answer"} - set(dataset.column_names):
        raise DataError(
            f"render_sft: saw the columns {dataset.column_names} without {sorted(absent)}; expected 'prompt' and "
            "'answer'; next step: load with load_prompts(..., reference_columns={'answer': <column>})"
        )
    if not len(dataset):
        raise DataError("render_sft: saw 0 rows; expected at least one; next step: check limit and offset")
    prompts, answers = list(dataset["prompt"]), list(dataset["answer"])
    if isinstance(prompts[0], str):
        return Dataset.from_dict({"prompt": prompts, "completion": answers})
    turns = [[{"role": "assistant", "content": answer}] for answer in answers]
    return Dataset.from_dict({"prompt": prompts, "completion": turns})
