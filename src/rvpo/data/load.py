"""``load_prompts``: load checked prompt records from a path or hub id."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rvpo.data import rlla, rubrics
from rvpo.data.files import STORAGES, open_rows, storage_of
from rvpo.data.find_rubrics import find_rubrics
from rvpo.data.general import General, read_general
from rvpo.data.options import (
    LAYOUTS,
    check_clash,
    check_combination,
    check_image_column,
    check_numbers,
    check_options,
    check_rubric_options,
)
from rvpo.data.picture_columns import AUTO, IMAGES, NONE, find_pictures, in_parts
from rvpo.data.records import (
    Place,
    Row,
    Rows,
    build_dataset,
    check_types,
    prompt_chars,
    source_error,
    to_record,
)
from rvpo.data.unread_pictures import has_pictures
from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["LAYOUTS", "load_prompts"]

logger = logging.getLogger(__name__)

Placed = list[tuple[Place, Row]]


def load_prompts(
    path_or_id: str | Path,
    *,
    layout: str = "auto",
    prompt_column: str = "prompt",
    reference_columns: Mapping[str, str] | None = None,
    rubric_keys: Mapping[str, str] | None = None,
    pitfalls: str | None = None,
    missing_rubrics: str = "error",
    subset: str | None = None,
    split: str | None = None,
    system_prompt: str | None = None,
    image_column: str = AUTO,
    max_prompt_chars: int | None = None,
    shuffle_seed: int | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> Dataset:
    """Load prompts and their references. Every row is checked, and no row is skipped silently.

    The steps run in this order: read and check all rows, set the system prompt, leave out long prompts, shuffle, and
    take ``limit`` rows from ``offset`` on. So two calls with the same seed and disjoint ranges give a training and an
    evaluation set that share no row.

    Args:
        path_or_id: file (JSONL, JSON, CSV, parquet, or YAML with rubrics; gzip, bzip2 and zstd are unpacked), folder
            that ``save_to_disk`` wrote, folder with such files of one kind, or hub id ``org/name``.
        layout: one of :data:`LAYOUTS`. ``auto`` finds the prompt, the answer and a rubric by their names and forms
            (docs/rubrics.md has the table), and logs one line that says which columns were read as what. ``jsonl``,
            ``json``, ``csv``, ``parquet``, ``dataset``, ``folder`` and ``hub`` name only the format. ``rlla`` and
            ``rlla_parquet`` are tool-calling data. ``rar``, ``healthbench`` and ``rubrics`` are strict readers of one
            layout each (:mod:`rvpo.data.rubrics`).
        prompt_column: column with the prompt: text, chat messages ``{"role", "content"}``, turns ``{"from", "value"}``,
            or the JSON text of either. If no column is called ``prompt``, a column with another usual name
            (``question``, ``problem``, ``messages``, …) is read; two such columns are an error. Several columns are
            joined by " + " (``"facts + question"``). Other columns that may be a part of the prompt are refused, unless
            this option names a column other than ``prompt``.
        reference_columns: new name -> column of the file, or path such as ``reward_model.ground_truth``. ``answer``
            must be text or a number; other columns may have any value but null. Both RLLA layouts add the column
            ``answer`` (the reference reply). None reads ``answer`` if the file has it under this or another usual name.
            A file with rubrics needs no answer.
        rubric_keys: names in the rubrics, if they are not the usual ones: ``rubric`` is a column or path; ``text``,
            ``weight``, ``label`` and ``id`` are keys of a criterion, such as ``{"weight": "importance"}``.
        pitfalls: ``met_is_bad`` or ``met_is_good``: whether it is bad or good to meet the text of a criterion of the
            category pitfall. Needed if descriptions begin with "Pitfall Criteria:"; see
            :func:`rvpo.data.rubrics.rar_row`.
        missing_rubrics: ``error`` refuses a row without a rubric if others have one; ``keep`` reads it as null.
        subset: configuration of a hub dataset, such as ``main`` of ``openai/gsm8k``.
        split: split of a saved ``DatasetDict`` or hub dataset. Not needed if there is only one.
        system_prompt: text that replaces the leading system message, or is added as one. A text prompt becomes the
            user's message, so that completions become chat messages, too.
        image_column: column with the pictures of the prompts. Values are bytes, ``{bytes, path}`` as in ``datasets``,
            paths relative to the file, ``data:`` URLs, or a list of these. ``auto`` reads ``images`` or ``image``, or
            the parts of chat messages that are pictures, and refuses a table with pictures under another name.
            ``none`` reads only text. A picture is put where the prompt has ``<image>``, or before the first text of the
            user.
        max_prompt_chars: maximum length of a prompt, in characters of all messages. Longer prompts are left out, and
            their number is logged as a warning.
        shuffle_seed: random seed of the shuffle; None keeps the file's order.
        offset: number of rows to skip, after the steps above.
        limit: maximum number of rows; None keeps all.

    Returns:
        A ``datasets.Dataset`` with the column ``prompt`` and the new names of ``reference_columns``. Files with rubrics
        add the column ``rubric`` (JSON of :class:`rvpo.rewards.rubric.Rubric`), and ``healthbench`` also adds
        ``example_tags`` (a JSON list of texts). Prompts with pictures are chat messages whose contents are lists of
        parts. The column ``images`` has one list of pictures per row, at full size and in RGB.

    Raises:
        ConfigError: an option cannot work (unknown layout, reserved or repeated column, negative range).
        DataError: the source cannot be read, a row is malformed, a column looks like a rubric but cannot be read, two
            columns may be the same part, or no row is left. The message names the file, the row (from 0), the line
            (JSONL), the field, what was seen, what was expected, and the next step.

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
    check_options(layout, prompt_column, {} if reference_columns is None else reference_columns, system_prompt)
    check_rubric_options(pitfalls, rubric_keys, missing_rubrics)
    check_numbers(max_prompt_chars=max_prompt_chars, limit=limit, offset=offset, shuffle_seed=shuffle_seed)
    source = str(path_or_id)
    storage = layout if layout in STORAGES or layout.startswith("rlla") else storage_of(path_or_id)
    if storage == "yaml" and layout == "auto":
        layout = "rubrics"
    check_image_column(layout, image_column)
    options = General(
        prompt_column,
        reference_columns,
        rubric_keys or {},
        pitfalls,
        missing_rubrics,
        system_prompt,
        image_column,
        trusted_paths=storage in ("dataset", "hub"),
    )
    check_combination(
        layout, storage, prompt_column=prompt_column, subset=subset, split=split, about_rubrics=options.about_rubrics
    )
    if layout == "auto" or layout in STORAGES:
        rows = list(open_rows(path_or_id, storage, subset=subset, split=split, pictures=image_column))
        known = None if layout in STORAGES else _known_layout(rows, storage, options)
        if known is None:
            placed, line = read_general(rows, options)
        else:
            placed = _strict(iter(rows), known, options)
            line = "read as HealthBench: criteria, points and tags" if known == "healthbench" else ""
    else:
        columns = None
        if layout in ("rar", "rlla_parquet"):
            columns = {*rubrics.COLUMNS.get(layout, {"prompt"}), *(reference_columns or {}).values()}
        where = {"rlla": "json", "rlla_parquet": "parquet"}.get(layout, storage)
        if layout == "rlla_parquet" and columns is not None:
            columns = {"reward_model", *(columns - {"answer"})}
        if where == "yaml":
            raw = _yaml_rows(Path(path_or_id), layout, options)
        else:
            raw = open_rows(path_or_id, where, subset=subset, split=split, columns=columns)
        placed, line = _strict(raw, layout, options, converted=where == "yaml"), ""
    if line:
        logger.warning("%s: %s", source, line)
    if not placed:
        raise source_error(source, "0 rows", "at least one row", "check how the file was written")
    check_types(placed)
    total = len(placed)
    if max_prompt_chars is not None:
        placed = [(place, record) for place, record in placed if prompt_chars(record) <= max_prompt_chars]
        if left_out := total - len(placed):
            message = "%s: %d of %d prompts are longer than max_prompt_chars=%d and are left out"
            logger.warning(message, source, left_out, total, max_prompt_chars)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(placed)
    kept = placed[offset:] if limit is None else placed[offset : offset + limit]
    if not kept:
        seen = f"no row left of {total} (max_prompt_chars={max_prompt_chars} keeps {len(placed)}, {offset=})"
        raise source_error(source, seen, "at least one row", "raise max_prompt_chars or lower offset")
    return build_dataset([(place, _for_processors(record)) for place, record in kept])


def _for_processors(record: Row) -> Row:
    """Return a record whose messages are lists of parts, if it has pictures."""
    return {**record, "prompt": in_parts(record["prompt"])} if IMAGES in record else record


def _known_layout(rows: Placed, storage: str, options: General) -> str | None:
    """Return the layout of the first row, if a special reader exists for it."""
    if not rows or options.prompt_column != "prompt" or options.about_rubrics or options.missing_rubrics != "error":
        return None
    if find_pictures(rows, options.image_column if options.image_column in (AUTO, NONE) else NONE) is not None:
        return None  # only the general reader reads pictures
    if has_pictures(rows[0], options.image_column):
        return None  # only the general reader refuses pictures that are not read
    row = rows[0][1]
    of_json = storage in ("json", "folder") and rlla.is_rlla(row)
    if of_json or rlla.is_rlla_parquet(row):
        raw = list((options.references or {}).values())
        if find_rubrics(rows, None, raw) is not None:
            return None  # the general reader reads both
        return "rlla" if of_json else "rlla_parquet"
    return rubrics.detect_rubrics(row) if options.references is None else None


def _yaml_rows(path: Path, layout: str, options: General) -> Rows:
    if layout != "rubrics":
        raise ConfigError(
            f"layout={layout!r} with YAML; expected JSON, JSONL, CSV or parquet; next step: convert the file"
        )
    return rubrics.read_rubrics_yaml(path, (options.references or {}).values())


def _strict(rows: Rows, layout: str, options: General, *, converted: bool = False) -> Placed:
    """Return the checked records of a layout with a special reader. ``converted``: whether rows have their columns."""
    own = rubrics.OWN_COLUMNS.get(layout, {})
    references = options.references
    if references is None:
        references = {} if own else {"answer": "answer"}
    check_clash(layout, references, own)
    if layout.startswith("rlla"):
        rows = rlla.convert(rows, layout)
    elif not converted:
        rows = rubrics.convert(rows, layout, pitfalls=options.pitfalls, references=references.values())
    return [
        (
            place,
            to_record(
                place,
                row,
                prompt_column="prompt",
                reference_columns={**own, **references},
                system_prompt=options.system_prompt,
            ),
        )
        for place, row in rows
    ]
