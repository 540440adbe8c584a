"""Check the options of ``load_prompts``, before a file is opened."""

from __future__ import annotations

from collections.abc import Mapping

from rvpo.data.criterion import RUBRIC_KEYS
from rvpo.data.files import STORAGES
from rvpo.data.picture_columns import AUTO, NONE
from rvpo.data.pitfalls import PITFALLS
from rvpo.data.records import RESERVED_COLUMNS
from rvpo.errors import ConfigError
from rvpo.text.suggest import did_you_mean

LAYOUTS = ("auto", "rlla", "rlla_parquet", *STORAGES, "rar", "healthbench", "rubrics")
"""Values of the option ``layout``."""

MISSING_RUBRICS = ("error", "keep")
"""Values of the option ``missing_rubrics``."""


def check_options(layout: str, prompt_column: str, references: Mapping[str, str], system_prompt: str | None) -> None:
    """Check layout, columns and system prompt.

    Raises:
        ConfigError: an option has a value that cannot work.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r}; expected one of {', '.join(LAYOUTS)}; next step: leave it out (auto)")
    if not isinstance(references, Mapping) or not all(
        isinstance(text, str) and text for item in references.items() for text in item
    ):
        raise ConfigError(
            f"reference_columns={references!r}; expected a mapping of text to text, new name -> column of the "
            "file; next step: write, for example, {'answer': 'answer'}"
        )
    if not isinstance(prompt_column, str) or not prompt_column:
        raise ConfigError(f"prompt_column={prompt_column!r}; expected the name of a column; next step: name it")
    if system_prompt is not None and (not isinstance(system_prompt, str) or not system_prompt.strip()):
        raise ConfigError(f"system_prompt={system_prompt!r}; expected text or None; next step: leave it out")
    for name in references:
        if name == "prompt" or name in RESERVED_COLUMNS:
            raise ConfigError(
                f"reference_columns names a result column {name!r}, which the trainer uses itself; expected any "
                f"name but prompt, {', '.join(RESERVED_COLUMNS)}; next step: choose another new name, such as "
                f"{{'reference_{name}': {references[name]!r}}}"
            )
    columns = list(references.values())
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise ConfigError(
            f"reference_columns={dict(references)!r} reads {repeated} twice; expected one new name per column; next "
            "step: remove the other name"
        )


def check_image_column(layout: str, image_column: str) -> None:
    """Check the option ``image_column``.

    Raises:
        ConfigError: its value cannot work with the layout.
    """
    if not isinstance(image_column, str) or not image_column:
        raise ConfigError(
            f"image_column={image_column!r}; expected auto, none or the name of a column; next step: leave it out "
            "(auto)"
        )
    if image_column not in (AUTO, NONE) and layout != "auto" and layout not in STORAGES:
        raise ConfigError(
            f"image_column={image_column!r} with layout={layout!r}, which has no pictures; expected layout='auto' or "
            "the name of a file format; next step: leave out one of the two"
        )


def check_numbers(**options: int | None) -> None:
    """Check the numbers that select rows.

    Raises:
        ConfigError: a number is too low, or is not a whole number.
    """
    lowest = {"max_prompt_chars": 1, "limit": 1, "offset": 0, "shuffle_seed": 0}
    for name, value in options.items():
        if value is None and name != "offset":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest[name]:
            raise ConfigError(
                f"{name}={value!r}; expected a whole number of at least {lowest[name]}; next step: correct it"
            )


def check_rubric_options(pitfalls: str | None, rubric_keys: Mapping[str, str] | None, missing_rubrics: str) -> None:
    """Check the options for rubrics.

    Raises:
        ConfigError: an option has a value that cannot work.
    """
    if pitfalls is not None and pitfalls not in PITFALLS:
        raise ConfigError(f"pitfalls={pitfalls!r}; expected {' or '.join(PITFALLS)}; next step: correct it")
    if missing_rubrics not in MISSING_RUBRICS:
        raise ConfigError(f"missing_rubrics={missing_rubrics!r}; expected 'error' or 'keep'; next step: correct it")
    keys = {} if rubric_keys is None else rubric_keys
    texts = isinstance(keys, Mapping) and all(isinstance(t, str) and t for item in keys.items() for t in item)
    if not texts:
        raise ConfigError(
            f"rubric_keys={rubric_keys!r}; expected a mapping of text to text; next step: write, for example, "
            "{'rubric': 'extra_info.rubrics', 'weight': 'importance'}"
        )
    if unknown := [key for key in keys if key not in RUBRIC_KEYS]:
        hint = did_you_mean(unknown[0], RUBRIC_KEYS)
        raise ConfigError(
            f"rubric_keys names {unknown[0]!r}{hint}; expected one of {', '.join(RUBRIC_KEYS)}; next step: correct "
            "the key"
        )


def check_combination(
    layout: str, storage: str, *, prompt_column: str, subset: str | None, split: str | None, about_rubrics: bool
) -> None:
    """Check options against the layout and the storage of the rows.

    Raises:
        ConfigError: options contradict each other.
    """
    if split is not None and storage not in ("dataset", "hub"):
        raise ConfigError(
            f"split={split!r} with layout={layout!r}; expected a split of a saved dataset or hub dataset; next "
            "step: leave split out and name the file of that split"
        )
    if subset is not None and storage != "hub":
        raise ConfigError(f"subset={subset!r} with layout={layout!r}; expected a hub id; next step: leave subset out")
    defines_prompt = layout.startswith("rlla") or layout in ("rar", "healthbench", "rubrics")
    if defines_prompt and prompt_column != "prompt":
        raise ConfigError(
            f"prompt_column={prompt_column!r} with layout={layout!r}; expected 'prompt', which this layout "
            "defines; next step: leave it out, or set layout='jsonl' or 'parquet'"
        )
    if about_rubrics and layout.startswith("rlla"):
        raise ConfigError(
            f"pitfalls or rubric_keys with layout={layout!r}; expected a layout with rubrics; next step: leave them out"
        )


def check_clash(layout: str, references: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Check that ``reference_columns`` does not name a column that the layout makes itself.

    Raises:
        ConfigError: it names one.
    """
    if clash := [name for name in references if name in own]:
        raise ConfigError(
            f"reference_columns names a result column {clash[0]!r}, which layout={layout!r} makes itself; expected any "
            "other name; next step: remove the entry, or choose another new name"
        )
