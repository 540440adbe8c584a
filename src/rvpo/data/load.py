"""``load_prompts``: one call from a path or hub id to checked prompt records."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from rvpo.data import generic, rlla, rubrics
from rvpo.data.records import (
    RESERVED_COLUMNS,
    Rows,
    build_dataset,
    check_types,
    prompt_chars,
    source_error,
    to_record,
)
from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

LAYOUTS = ("auto", "rlla", "rlla_parquet", "jsonl", "parquet", "dataset", "hub", *rubrics.OWN_COLUMNS)
"""The values of ``layout``."""

_DEFAULT_REFERENCES: Mapping[str, str] = MappingProxyType({"answer": "answer"})
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_FILE_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".txt", ".gz", ".zst", ".arrow", ".yaml", ".yml")


def load_prompts(
    path_or_id: str | Path,
    *,
    layout: str = "auto",
    prompt_column: str = "prompt",
    reference_columns: Mapping[str, str] | None = None,
    pitfalls: str | None = None,
    subset: str | None = None,
    split: str | None = None,
    system_prompt: str | None = None,
    max_prompt_chars: int | None = None,
    shuffle_seed: int | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> Dataset:
    """Read prompts and their references; every row is checked, none is skipped in silence.

    The steps run in this order: read and check all rows, set the system prompt, leave out long prompts,
    shuffle, take ``limit`` rows from ``offset`` on. So two calls with the same seed and disjoint ranges
    give a training and an evaluation set that share no row.

    Args:
        path_or_id: A file, a folder that ``save_to_disk`` wrote, or a hub id ``org/name``.
        layout: One of :data:`LAYOUTS`. ``auto`` looks at the content: a JSON list is ``rlla``, a parquet
            file with the columns ``data_source``, ``prompt`` and ``reward_model`` but no ``answer`` is
            ``rlla_parquet``. Layouts with rubrics (fields: :mod:`rvpo.data.rubrics`): ``rar`` and
            ``healthbench`` in JSONL, parquet, a saved folder or a hub id, ``rubrics`` in JSONL or YAML. ``auto``
            knows them by their columns in JSONL and parquet where ``reference_columns`` is not given and there is
            no ``answer``, and YAML by its suffix.
        prompt_column: The file's column with the prompt: text, or chat messages ``{"role", "content"}``.
        reference_columns: New name -> column of the file. ``answer`` must be text; other columns may hold
            any value but null. Both RLLA layouts add the column ``answer`` (the reference reply). None is
            ``{"answer": "answer"}``, and nothing for the layouts with rubrics, which need no answer
            (``{"answer": "reference_answer"}`` reads that of ``rar``).
        pitfalls: ``met_is_bad`` or ``met_is_good``, for the layout ``rar``: what it means that the text of a
            criterion of the category pitfall is *met*. Needed where there is one; see
            :func:`rvpo.data.rubrics.rar_row`.
        subset: The hub dataset's configuration, such as ``main`` of ``openai/gsm8k``.
        split: Which split of a saved ``DatasetDict`` or hub dataset; not needed where there is one.
        system_prompt: Replaces the leading system message, or adds one. A text prompt becomes the
            user's message, so that completions become chat messages too.
        max_prompt_chars: Leave out prompts with more characters than this, all messages counted; the
            number left out is logged as a warning.
        shuffle_seed: Shuffle with this seed; None keeps the file's order.
        offset: The first row to keep (after the steps above).
        limit: At most this many rows; None keeps all.

    Returns:
        A ``datasets.Dataset`` with the column ``prompt`` and the new names of ``reference_columns``. The layouts
        with rubrics add the column ``rubric`` (JSON of :class:`rvpo.rewards.rubric.Rubric`), ``healthbench`` also
        ``example_tags`` (a JSON list of texts).

    Raises:
        ConfigError: an option cannot work (unknown layout, reserved or repeated column, negative range).
        DataError: the source cannot be read, a row is malformed, or no row is left. The message names the
            file, the row (from 0), the line (JSONL), the field, what was seen, and the next step.

    Example:
        >>> data = load_prompts("rlla_sft.json", max_prompt_chars=3000, limit=64)  # doctest: +SKIP
        >>> data.column_names  # doctest: +SKIP
        ['prompt', 'answer']
        >>> load_prompts(
        ...     "openai/gsm8k",
        ...     subset="main",
        ...     split="train",
        ...     prompt_column="question",
        ...     system_prompt="Give the answer after ####.",
        ... )  # doctest: +SKIP
    """
    asked = _DEFAULT_REFERENCES if reference_columns is None else reference_columns
    _check_options(layout, prompt_column, asked, system_prompt)
    _check_numbers(max_prompt_chars=max_prompt_chars, limit=limit, offset=offset, shuffle_seed=shuffle_seed)
    source = str(path_or_id)
    if layout == "auto":
        layout = detect_layout(path_or_id, prompt_column, may_hold_rubrics=reference_columns is None)
    storage, own = layout, rubrics.OWN_COLUMNS.get(layout, {})
    if own:
        storage, asked = _storage(path_or_id), reference_columns or {}
        _check_rubric_layout(layout, storage, asked)
    _check_combination(layout, storage, prompt_column, subset, split, pitfalls)
    if storage == "yaml":
        rows = rubrics.read_rubrics_yaml(Path(path_or_id), asked.values())
    else:
        columns = {*rubrics.COLUMNS.get(layout, {prompt_column}), *asked.values()}
        rows = _open(path_or_id, storage, columns, subset, split)
        rows = rubrics.convert(rows, layout, pitfalls=pitfalls, references=asked.values())
    placed = [
        (
            place,
            to_record(
                place,
                row,
                prompt_column=prompt_column,
                reference_columns={**own, **asked},
                system_prompt=system_prompt,
            ),
        )
        for place, row in rows
    ]
    if not placed:
        raise source_error(source, "0 rows", "at least one row", "check how the file was written")
    check_types(placed)
    total = len(placed)
    if max_prompt_chars is not None:
        placed = [(place, record) for place, record in placed if prompt_chars(record) <= max_prompt_chars]
        if left_out := total - len(placed):
            message = "%s: left out %d of %d prompts that are longer than max_prompt_chars=%d"
            logger.warning(message, source, left_out, total, max_prompt_chars)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(placed)
    kept = placed[offset:] if limit is None else placed[offset : offset + limit]
    if not kept:
        seen = f"no row left of {total} (max_prompt_chars={max_prompt_chars} keeps {len(placed)}, {offset=})"
        raise source_error(source, seen, "at least one row", "raise max_prompt_chars or lower offset")
    return build_dataset(kept)


def detect_layout(path_or_id: str | Path, prompt_column: str = "prompt", *, may_hold_rubrics: bool = False) -> str:
    """Return the layout that the content of a path shows, or ``hub`` for an id ``org/name``.

    Args:
        path_or_id: as in :func:`load_prompts`.
        prompt_column: the column that holds the prompt; any but the default rules out RLLA and rubrics.
        may_hold_rubrics: whether a file whose columns are those of a layout with rubrics is one.

    Raises:
        DataError: nothing of that name exists and it is no hub id, or the content fits no layout.
    """
    storage, path = _storage(path_or_id), Path(path_or_id)
    if storage == "yaml":
        return "rubrics"
    names: list[str] = []
    if storage == "parquet":
        names = generic.parquet_columns(path)
        if rlla.PARQUET_COLUMNS.issubset(names) and "answer" not in names and prompt_column == "prompt":
            return "rlla_parquet"
    elif storage == "jsonl":
        names = generic.first_keys(path)
    detected = rubrics.detect_rubrics(names) if may_hold_rubrics and prompt_column == "prompt" else None
    return detected or storage


def _storage(path_or_id: str | Path) -> str:
    """Return how the rows are stored: ``hub``, ``dataset``, ``parquet``, ``jsonl``, ``yaml``, or ``rlla`` (a list)."""
    path = Path(path_or_id)
    source = str(path_or_id)
    next_step = f"give the right path, or set layout to one of {', '.join(LAYOUTS[1:])}"
    if path.is_dir():
        if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            return "dataset"
        names = sorted(child.name for child in path.iterdir())[:6]
        raise source_error(source, f"a folder with {names}", "a folder written by save_to_disk", next_step)
    if not path.exists() and _HUB_ID.fullmatch(source) and not source.endswith(_FILE_SUFFIXES):
        return "hub"
    head = _check_file(path)
    if path.suffix in (".yaml", ".yml"):
        return "yaml"
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first in (b"[", b"{"):
        return "rlla" if first == b"[" else "jsonl"
    allowed = "RLLA JSON (a list), JSONL (an object a line), parquet, or rubrics in a file named .yaml"
    raise source_error(source, f"content that starts with {head[:40]!r}", allowed, next_step)


def _check_file(path: Path) -> bytes:
    """Return the first bytes of a file that exists, has content and is not a stand-in for another."""
    source, allowed = str(path), "a file with rows"
    if path.is_dir():
        raise source_error(source, "a folder", allowed, "name one file in it, or use layout='dataset'")
    if not path.exists():
        raise source_error(source, "no such file", "a file, a folder or a hub id 'org/name'", "check the path")
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.strip():
        raise source_error(source, "an empty file", allowed, "check how the file was written")
    if head.startswith(b"version https://git-lfs"):
        raise source_error(source, "a Git LFS pointer", allowed, "run `git lfs pull` where it was cloned")
    return head


def _open(path_or_id: str | Path, layout: str, columns: set[str], subset: str | None, split: str | None) -> Rows:
    path = Path(path_or_id)
    if layout == "hub":
        return generic.read_hub(str(path_or_id), subset=subset, split=split, columns=columns)
    if layout == "dataset":
        return generic.read_dataset(path, split=split, columns=columns)
    _check_file(path)
    if layout == "rlla":
        return rlla.read_rlla_json(path)
    if layout == "rlla_parquet":
        return rlla.read_rlla_parquet(path, columns)
    return generic.read_jsonl(path) if layout == "jsonl" else generic.read_parquet(path, columns)


def _check_options(layout: str, prompt_column: str, references: Mapping[str, str], system_prompt: str | None) -> None:
    if layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r}; allowed: {', '.join(LAYOUTS)}; next step: leave it out (auto)")
    if not isinstance(references, Mapping) or not all(
        isinstance(text, str) and text for item in references.items() for text in item
    ):
        raise ConfigError(
            f"reference_columns={references!r}; allowed: a mapping of text to text, new name -> column of the "
            "file; next step: write for example {'answer': 'answer'}"
        )
    if not isinstance(prompt_column, str) or not prompt_column:
        raise ConfigError(f"prompt_column={prompt_column!r}; allowed: a column name; next step: name it")
    if system_prompt is not None and (not isinstance(system_prompt, str) or not system_prompt.strip()):
        raise ConfigError(f"system_prompt={system_prompt!r}; allowed: text or None; next step: leave it out")
    for name in references:
        if name == "prompt" or name in RESERVED_COLUMNS:
            raise ConfigError(
                f"reference_columns names a result column {name!r}, which the trainer uses itself; allowed: any "
                f"name but prompt, {', '.join(RESERVED_COLUMNS)}; next step: choose another new name, such as "
                f"{{'reference_{name}': {references[name]!r}}}"
            )
    columns = list(references.values())
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise ConfigError(
            f"reference_columns={dict(references)!r} reads {repeated} twice; allowed: one new name a column; next "
            "step: remove the other name"
        )


def _check_numbers(**options: int | None) -> None:
    lowest = {"max_prompt_chars": 1, "limit": 1, "offset": 0, "shuffle_seed": 0}
    for name, value in options.items():
        if value is None and name != "offset":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest[name]:
            raise ConfigError(
                f"{name}={value!r}; allowed: a whole number of at least {lowest[name]}; next step: correct it"
            )


def _check_combination(
    layout: str, storage: str, prompt_column: str, subset: str | None, split: str | None, pitfalls: str | None
) -> None:
    if split is not None and storage not in ("dataset", "hub"):
        raise ConfigError(
            f"split={split!r} with layout={layout!r}; allowed: a split of a saved dataset or hub dataset; next "
            "step: leave split out and name the file of that split"
        )
    if subset is not None and storage != "hub":
        raise ConfigError(f"subset={subset!r} with layout={layout!r}; allowed: with hub ids; next step: remove it")
    if (layout.startswith("rlla") or layout in rubrics.OWN_COLUMNS) and prompt_column != "prompt":
        raise ConfigError(
            f"prompt_column={prompt_column!r} with layout={layout!r}; allowed: 'prompt', which this layout "
            "defines; next step: leave it out, or set layout='jsonl' or 'parquet'"
        )
    if pitfalls is not None and (layout != "rar" or pitfalls not in rubrics.PITFALLS):
        raise ConfigError(
            f"pitfalls={pitfalls!r} with layout={layout!r}; allowed: {' or '.join(rubrics.PITFALLS)}, with "
            "layout='rar'; next step: correct it, or leave it out for other layouts"
        )


def _check_rubric_layout(layout: str, storage: str, references: Mapping[str, str]) -> None:
    allowed = ("jsonl", "yaml") if layout == "rubrics" else ("jsonl", "parquet", "dataset", "hub")
    if storage not in allowed:
        seen = "a JSON list" if storage == "rlla" else storage
        raise ConfigError(f"layout={layout!r} with {seen}; allowed: {', '.join(allowed)}; next step: convert the file")
    if clash := [name for name in references if name in rubrics.OWN_COLUMNS[layout]]:
        raise ConfigError(
            f"reference_columns names a result column {clash[0]!r}, which layout={layout!r} makes itself; allowed: any "
            "other name; next step: remove the entry, or choose another new name"
        )
