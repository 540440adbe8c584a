"""Read rewards and groups in the forms that callers use: tensors, arrays, lists, and rows by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rvpo.core.ragged import Family, Score
from rvpo.errors import RewardError
from rvpo.text.suggest import did_you_mean

EXPECTED = "a tensor, an array or nested lists of shape (N, M), or N mappings by name"


class Rewards:
    """The rewards of a batch, read from any supported form.

    Attributes:
        matrix: (N, F) floating point, one column per name, NaN = missing.
        families: the rubrics, which are names whose value is a mapping of criteria.
        kind: ``"tensor"``, ``"array"`` or ``"list"``: the form in which the caller gets the advantages.
    """

    def __init__(self, rewards: Any, names: Sequence[str], may_be_empty: bool = False) -> None:
        """Read rewards.

        Args:
            rewards: rewards of the batch.
            names: names of the channels.
            may_be_empty: whether zero rows are accepted, because other ranks may have rows.

        Raises:
            RewardError: their form is unknown, the number of columns does not fit, or a name is unknown.
        """
        self.kind = "list"
        self.families: list[Family] = []
        if isinstance(rewards, Tensor):
            self.kind = "tensor"
            if rewards.is_complex():
                raise RewardError(f"rewards is a {rewards.dtype} tensor; expected real numbers, with NaN = missing")
            self.matrix = rewards if rewards.is_floating_point() else _from_whole(rewards)
            self._dtype = rewards.dtype if rewards.is_floating_point() else torch.get_default_dtype()
        elif type(rewards).__module__.partition(".")[0] == "numpy":  # numpy.ma, too
            self.kind = "array"
            self.matrix = _from_array(rewards)
        else:
            rows = _rows(rewards)
            if rows and isinstance(rows[0], Mapping):
                self.matrix, self.families = _from_mappings(rows, names)
            else:
                self.matrix = _from_lists(rows)
        if may_be_empty and not len(self.matrix):
            self.matrix = self.matrix.reshape(0, len(names))
            return
        if self.matrix.ndim != 2 or self.matrix.shape[1] != len(names) or not len(self.matrix):
            raise RewardError(
                f"rewards has shape {tuple(self.matrix.shape)} for the {len(names)} channels {', '.join(names)}; "
                f"expected {EXPECTED}, with one column per channel and at least one row"
            )

    def give_back(self, x: Tensor) -> Any:
        """Return a result in the form that the caller used."""
        if self.kind == "tensor":
            return x.to(self._dtype)
        return x.numpy() if self.kind == "array" else x.tolist()


def _from_whole(rewards: Tensor) -> Tensor:
    """Return whole numbers in double precision: in single precision, 16777216 and 16777217 are equal."""
    return rewards.to(torch.float32 if rewards.device.type == "mps" else torch.float64)


def group_numbers(groups: Any, rows: int, device: torch.device) -> Tensor:
    """Number the groups of rows by their ids, in order of appearance.

    Args:
        groups: N ids: a tensor, an array or a sequence of any hashable values.
        rows: N, the number of rows.
        device: device of the result.

    Returns:
        (N,) int64.

    Raises:
        RewardError: the number of ids is not N, or an id is None, NaN or not hashable.
    """
    if isinstance(groups, set | frozenset | Mapping) or not hasattr(groups, "__iter__"):
        raise RewardError(f"groups is a {type(groups).__name__}; expected a list of one id per row, in their order")
    is_single = getattr(groups, "ndim", 1) == 0  # of torch or NumPy, which cannot be iterated over
    ids = [] if is_single else groups.tolist() if hasattr(groups, "tolist") else list(groups)
    # Each tensor is an id of its own, whatever its value is. So read the value of a scalar of torch or NumPy.
    ids = [name.item() if getattr(name, "ndim", None) == 0 else name for name in ids]
    if len(ids) != rows or (ids and isinstance(ids[0], list)):
        raise RewardError(f"groups has {len(ids)} ids for {rows} rows; expected one id per row")
    numbers: dict[Any, int] = {}
    index = []
    for row, name in enumerate(ids):
        if name is None or name != name:
            raise RewardError(
                f"groups[{row}] is {name!r}; expected an id of the row's prompt, such as a number or text"
            )
        try:
            index.append(numbers.setdefault(name, len(numbers)))
        except TypeError as error:
            raise RewardError(
                f"groups[{row}] is a {type(name).__name__}, which cannot be hashed; expected an id such as a number, a "
                "text or a tuple"
            ) from error
    return torch.tensor(index, dtype=torch.int64, device=device)


def _rows(rewards: Any) -> list[Any]:
    if isinstance(rewards, str | bytes | Mapping | set | frozenset) or not hasattr(rewards, "__iter__"):
        raise RewardError(f"rewards is a {type(rewards).__name__}; expected {EXPECTED}")
    if hasattr(rewards, "columns"):  # its columns are iterated over, not its rows
        raise RewardError(f"rewards is a {type(rewards).__name__}; expected {EXPECTED}. Pass rewards[names].to_numpy()")
    return list(rewards)


def _from_array(rewards: Any) -> Tensor:
    if rewards.dtype.kind == "O":  # numbers and None
        return _from_lists(_rows(rewards.tolist()))
    if rewards.dtype.kind not in "fiub":
        raise RewardError(f"rewards is an array of dtype {rewards.dtype}; expected numbers, with NaN = missing")
    if hasattr(rewards, "filled"):  # a masked array: what is masked is missing
        rewards = rewards.astype("float64").filled(math.nan)
    known = {"float16", "float32", "float64"}
    # Copy the array: torch refuses arrays with a negative stride, and warns about arrays that are read-only.
    return torch.from_numpy(rewards.astype(str(rewards.dtype) if str(rewards.dtype) in known else "float64", order="C"))


def _from_lists(rows: Sequence[Any]) -> Tensor:
    values = []
    for i, row in enumerate(rows):
        if isinstance(row, str | bytes | Mapping | set | frozenset) or not hasattr(row, "__iter__"):
            raise RewardError(f"rewards[{i}] is a {type(row).__name__}; expected a list of one number per channel")
        values.append([_number(value, f"rewards[{i}]") for value in row])
    if len({len(row) for row in values}) > 1:
        short = next(i for i, row in enumerate(values) if len(row) != len(values[0]))
        raise RewardError(
            f"rewards[{short}] has {len(values[short])} numbers and rewards[0] has {len(values[0])}; expected one per "
            "channel in every row, None where a channel could not be scored"
        )
    return torch.tensor(values, dtype=torch.float64)


def _from_mappings(rows: Sequence[Any], names: Sequence[str]) -> tuple[Tensor, list[Family]]:
    """Read rows by name. A name whose values are mappings is a rubric, with one channel per criterion."""
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RewardError(f"rewards[{i}] is a {type(row).__name__} and rewards[0] a mapping; expected N mappings")
        if unknown := [name for name in row if name not in names]:
            raise RewardError(
                f"rewards[{i}] names {unknown[0]!r}{did_you_mean(unknown[0], names)}; expected {', '.join(names)}"
            )
    columns, families = [], []
    for name in names:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, Mapping) for value in values):
            families.append(Family(name, [_scores(value, f"rewards[{i}], {name!r}") for i, value in enumerate(values)]))
            values = [None] * len(rows)
        columns.append([_number(value, f"rewards[{i}], {name!r}") for i, value in enumerate(values)])
    return torch.tensor(columns, dtype=torch.float64).T.contiguous(), families


def _scores(verdicts: Any, where: str) -> list[Score]:
    if _number_or_none(verdicts) is None and not isinstance(verdicts, Mapping):
        return []
    if not isinstance(verdicts, Mapping):
        raise RewardError(f"{where} is {verdicts!r}, but a mapping in other rows; expected {{criterion: verdict}}")
    scores = []
    for criterion, verdict in verdicts.items():
        value = _number(verdict, f"{where}, criterion {criterion!r}")
        scores.append(Score(str(criterion), None if math.isnan(value) else value))
    return scores


def aligned_families(families: Sequence[Family], groups: Sequence[int]) -> list[Family]:
    """Give all rows of a group the same criteria. A criterion that a row lacks is missing there."""
    aligned = []
    for family in families:
        criteria: dict[int, dict[str, None]] = {}
        for group, row in zip(groups, family.rows, strict=True):
            criteria.setdefault(group, {}).update({score.channel: None for score in row})
        rows = []
        for group, row in zip(groups, family.rows, strict=True):
            known = {score.channel: score for score in row}
            rows.append([known.get(name, Score(name, None, reason="absent")) for name in criteria[group]])
        aligned.append(Family(family.name, rows, family.only_monitored))
    return aligned


def _number_or_none(value: Any) -> float | None:
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _number(value: Any, where: str) -> float:
    """Return a reward as a float, NaN for None.

    Raises:
        RewardError: it is not a number.
    """
    if value is None:
        return math.nan
    if type(value).__name__ == "MaskedConstant":  # an element of a masked NumPy array, whose item() is 0
        return math.nan
    convert: Callable[[], Any] | None = getattr(value, "item", None)  # a scalar of torch or NumPy
    try:
        plain = convert() if convert is not None else value
    except (ValueError, RuntimeError):  # several values
        plain = value
    if isinstance(plain, bool | int | float):
        return float(plain)
    raise RewardError(f"{where} is {value!r}; expected a number, or None or NaN where it could not be scored")
