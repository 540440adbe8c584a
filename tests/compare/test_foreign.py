"""Results of other evaluators: read where they hold a score per item, else refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from rvpo.compare.benchmarks import compare_benchmarks
from rvpo.compare.foreign import is_foreign, read_foreign
from rvpo.errors import ConfigError, DataError


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sample(i: int, score: float, **fields: Any) -> dict[str, Any]:
    asked = {"doc_id": i, "doc": {"question": "q"}, "target": "4", "arguments": {}, "resps": [["4"]]}
    return asked | {"filtered_resps": ["4"], "doc_hash": f"h{i}", "exact_match": score} | fields


def test_samples_of_lm_eval_are_compared_by_item(tmp_path: Path):
    for name, share in (("a", 2), ("b", 3)):
        rows = [sample(i, float(i % share == 0)) for i in range(60)]
        lines(tmp_path / name / "model" / "samples_gsm8k_2026-01-01T00-00-00.jsonl", rows)
        (tmp_path / name / "model" / "results_2026-01-01T00-00-00.json").write_text('{"results": {}}')
    comparison = compare_benchmarks([tmp_path / "a", tmp_path / "b"])
    assert (comparison.benchmark, comparison.primary) == ("lm-eval: gsm8k", "exact_match")
    [row] = comparison.rows["b"]
    assert row.difference.items == 60
    assert row.difference.mean == pytest.approx(20 / 60 - 30 / 60)
    assert row.test == "mcnemar"


def test_filters_are_metrics_and_other_questions_are_not_paired(tmp_path: Path):
    rows = [sample(0, 1.0, filter="strict"), sample(0, 0.0, filter="flexible"), sample(1, 1.0, filter="strict")]
    first = read_foreign(lines(tmp_path / "samples_gsm8k.jsonl", rows))
    assert {name: len(scores.values) for name, scores in first.metrics.items()} == {
        "exact_match,strict": 2,
        "exact_match,flexible": 1,
    }
    other = lines(tmp_path / "new" / "samples_gsm8k.jsonl", [sample(0, 1.0, doc_hash="another")])
    same = lines(tmp_path / "old" / "samples_gsm8k.jsonl", [sample(0, 1.0)])
    with pytest.raises(DataError, match="no item is scored both"):
        compare_benchmarks([f"x={other}", f"y={same}"])


def bfcl(path: Path, wrong: list[int], total: int = 400, **header: Any) -> Path:
    failed = [{"id": f"simple_python_{i}", "test_category": "simple_python", "valid": False} for i in wrong]
    numbers = {"accuracy": 1 - len(wrong) / total, "correct_count": total - len(wrong), "total_count": total}
    return lines(path, [numbers | header, *failed])


def test_scores_of_bfcl_list_the_failed_items_alone(tmp_path: Path):
    pytest.importorskip("bfcl_eval")
    name = "BFCL_v4_simple_python_score.json"
    a, b = bfcl(tmp_path / "a" / name, [1, 2, 3]), bfcl(tmp_path / "b" / name, [3])
    assert is_foreign(tmp_path / "a")
    comparison = compare_benchmarks([f"a={a}", tmp_path / "b"])
    [row] = comparison.rows["b"]
    assert row.difference.items == 400
    assert row.difference.mean == pytest.approx(2 / 400)
    assert sum(read_foreign(b).metrics["accuracy"].values.values()) == 399
    with pytest.raises(DataError, match="scores of 399 items of 'simple_python', of which the installed"):
        read_foreign(bfcl(tmp_path / "c" / name, [1], total=399))
    with pytest.raises(DataError, match="1 failed items after a header"):
        read_foreign(bfcl(tmp_path / "d" / name, [1], correct_count=398))


REFUSED: dict[str, tuple[str, Any, str]] = {
    "means of lm-eval": ("results_x.json", {"results": {"gsm8k": {"acc,none": 0.5}}, "configs": {}}, "--log_samples"),
    "means under another name": ("m.json", {"results": {"t": {"acc,none": 1}}, "versions": {}}, "lm-eval's results"),
    "Inspect": ("log.json", {"version": 2, "status": "success", "eval": {"task": "t"}}, "a log of Inspect"),
    "answers of a model": (
        "BFCL_v4_simple_python_result.json",
        {"id": "simple_python_0", "result": "f()"},
        "bfcl evaluate",
    ),
    "another evaluator": ("scores.jsonl", {"session_id": "a", "score": "7"}, "rows with .*'session_id'"),
    "two scores": ("samples_t.jsonl", [sample(0, 1.0), sample(0, 0.0)], "two scores of the item"),
    "no metric": ("samples_t.jsonl", [{"doc_id": 0, "resps": [["a"]], "target": "a"}], "samples without a metric"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_score_per_item_is_refused(name: str, tmp_path: Path):
    file, content, message = REFUSED[name]
    path = lines(tmp_path / file, content if isinstance(content, list) else [content])
    with pytest.raises(DataError, match=message):
        compare_benchmarks([path, tmp_path])


def test_a_missing_folder_is_still_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="is no folder"):
        compare_benchmarks([tmp_path / "a", tmp_path / "b"])
