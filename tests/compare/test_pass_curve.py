"""Pass@k over k: order and family of the metrics, warnings of runs, and the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_benchmarks import write_run

from rvpo import statistics as st
from rvpo.compare.benchmarks import compare_benchmarks
from rvpo.compare.comparison import BenchmarkComparison
from rvpo.compare.folders import refuse_evaluations
from rvpo.compare.pass_curve import draw_pass_curve, pass_rows
from rvpo.compare.tables import benchmarks_text
from rvpo.errors import ConfigError
from rvpo.evals.items import family_of

KS = (1, 2, 4, 16)


def write_samples(folder: Path, seed: int, shift: float, **results: object) -> str:
    """Write a run with 16 samples of each of 40 items."""
    rng = np.random.default_rng(seed)
    chance = np.clip(np.random.default_rng(9).beta(0.5, 1, 40) + shift, 0, 1)
    right = rng.binomial(16, chance)
    scores = {"avg@16": [c / 16 for c in right]}
    scores |= {f"pass@{k}": [st.pass_at_k(16, int(c), k) for c in right] for k in KS}
    return write_run(folder, scores, benchmark="math", **results)


@pytest.fixture
def comparison(tmp_path: Path) -> BenchmarkComparison:
    runs = [write_samples(tmp_path / "base", 0, 0.0), write_samples(tmp_path / "much", 1, 0.3)]
    return compare_benchmarks([*runs, write_samples(tmp_path / "same", 2, 0.0)], resamples=500)


def test_k_in_order_and_one_family(comparison: BenchmarkComparison):
    rows = {name: list(rows) for name, rows in comparison.rows.items()}
    assert [row.metric for row in rows["much"]] == ["avg@16", "pass@1", "pass@2", "pass@4", "pass@16"]
    family = [row for group in rows.values() for row in group if row.metric.startswith("pass@")]
    assert [row.adjusted for row in family] == st.holm([row.p or 0.0 for row in family])
    assert any("pass@k form one family" in note for note in comparison.notes)
    assert [family_of(name) for name in ("pass@8", "axis:a", "avg@4", "passed")] == ["pass@", "axis", "", ""]


def test_the_picture_shows_each_group_with_its_difference(comparison: BenchmarkComparison, tmp_path: Path):
    pytest.importorskip("matplotlib")
    assert list(pass_rows(comparison.rows["much"])) == list(KS)
    path = draw_pass_curve(comparison, tmp_path / "new" / "curve.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--plot is .*expected a file that can be written"):
        draw_pass_curve(comparison, tmp_path / "file" / "curve.png")


@pytest.mark.parametrize("names", [("$a_1", "b$"), ("_hidden", "\\frac"), ("", "{x}")])
def test_names_are_text_and_no_formulas(names: tuple[str, str], tmp_path: Path):
    pytest.importorskip("matplotlib")
    runs = [write_samples(tmp_path / "0", 0, 0.0), write_samples(tmp_path / "1", 1, 0.2)]
    named = [f"{name or 'x'}={run}" for name, run in zip(names, runs, strict=True)]
    assert draw_pass_curve(compare_benchmarks(named, resamples=200), tmp_path / "curve.png").exists()


def test_runs_without_pass_at_k_have_no_picture(tmp_path: Path):
    runs = [write_run(tmp_path / name, {"accuracy": [0, 1, 1], "pass@x": [1, 1, 1]}) for name in "ab"]
    with pytest.raises(ConfigError, match="have no metric pass@k in common"):
        draw_pass_curve(compare_benchmarks(runs, resamples=200), tmp_path / "curve.png")


@pytest.mark.parametrize("left", [("items.parquet", "results.json"), ("store.sqlite",)])
def test_evaluations_are_no_training_runs(tmp_path: Path, left: tuple[str, ...]):
    run = tmp_path / "my run"
    run.mkdir()
    for name in left:
        (run / name).touch()
    with pytest.raises(ConfigError, match=r"is an evaluation.*rvpo eval compare base=.*'.*my run'"):
        refuse_evaluations([f"base={tmp_path / 'other'}", str(run)])
    refuse_evaluations([f"base={tmp_path / 'other'}", str(tmp_path)])


def test_warnings_of_a_run_are_told_with_its_comparison(tmp_path: Path):
    warned = write_samples(tmp_path / "warned", 0, 0.0, warnings=["temperature is 0, and all samples are the same"])
    found = compare_benchmarks([warned, write_samples(tmp_path / "other", 1, 0.0)], resamples=200)
    assert f"{warned}: temperature is 0, and all samples are the same" in found.notes
    assert "temperature is 0" in benchmarks_text(found)
