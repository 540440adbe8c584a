"""Comparisons as text."""

from __future__ import annotations

import numpy as np

from compare.training_runs import seeds
from rvpo.compare.comparison import MEASURES
from rvpo.compare.tables import table_of_tests, trainings_text
from rvpo.compare.trainings import compare_trainings


def test_tables_show_a_measure_or_all_of_them():
    found = compare_trainings({"a": seeds("a", [0.1, 0.2]), "b|c": seeds("b", [0.3, 0.4])})
    short = trainings_text(found, ("last",), channels=False)
    assert "last: b|c against a" in short
    assert "auc: b|c" not in short
    assert "c: mean over runs" not in short.replace("worst channel: mean over runs", "")
    assert "0.10 0.20" in short  # each run
    everything = trainings_text(found, MEASURES, as_markdown=True)
    assert all(f"### {measure}: b|c against a" in everything for measure in MEASURES)
    assert "| b\\|c | 2 | 0.500 |" in everything
    assert "### c: mean over runs" in everything
    assert "\n* p: permutation test" in short
    head, worst, row = table_of_tests(found, "last")
    assert (len(head), worst[:2], row[:3]) == (9, ["b|c", "worst channel"], ["b|c", "c", "0.150"])
    assert list(found.groups[0].bands()) == ["worst channel", "c"]
    many = compare_trainings({"a": seeds("a", np.linspace(0, 1, 9)), "b": seeds("b", [0.3])})
    assert "0.00 to 1.00" in trainings_text(many, ("last",))
