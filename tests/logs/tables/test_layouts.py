"""Every layout becomes the same table: the numbers, the steps and the groups that its writer was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from logs.layouts.writers import LAYOUTS, REWARDS, WEIGHTS, truth
from rvpo.logs.tables import Table, look
from rvpo.logs.tables.folders import files_in

ROWS = truth(steps=11, prompts=2, generations=4)


def opened(path: Path) -> Table:
    return look(path, files_in(path) if path.is_dir() else [path])


def numbers(table: Table, name: str) -> list[float]:
    return table.read([name])[name].to_pylist()


def partition(values: Sequence[object]) -> list[int]:
    """Return the number of each value's first occurrence, the same for equal partitions."""
    seen: dict[object, int] = {}
    return [seen.setdefault(value, len(seen)) for value in values]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_the_table_that_was_written(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    table = opened(layout.write(tmp_path, ROWS))
    rows = ROWS
    assert table.rows == len(ROWS)
    for reward in REWARDS if layout.columns else ():
        column = table.columns[layout.column(reward)]
        assert (column.kind, column.odd, column.missing, column.doubt, column.repeated) == ("number", 0, 0, "", False)
        assert numbers(table, column.name) == [row[reward] for row in rows]
    for column, truth_of in ((layout.total, "total"), (layout.advantage, "advantage"), (layout.step, "step")):
        if column is not None:
            assert numbers(table, column) == pytest.approx([row[truth_of] for row in rows])
    if layout.group is not None:
        groups = table.read_texts([layout.group])[layout.group].to_pylist()
        assert partition(groups) == partition([row["group"] for row in rows])
    assert table.format == layout.trainer
    assert table.group == ("line" if layout.group == "line" else None)
    if name == "prime_rl_traces":
        assert table.weights == {f"rewards.{reward}": WEIGHTS[reward] for reward in REWARDS}
