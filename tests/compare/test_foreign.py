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
    with pytest.raises(DataError, match="scores of 399 items of 'simple_python', but the installed"):
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
    "another evaluator": ("scores.jsonl", {"session_id": "a", "mark": "good"}, "rows with .*'session_id'.*no score"),
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
    with pytest.raises(ConfigError, match="is not a folder"):
        compare_benchmarks([tmp_path / "a", tmp_path / "b"])


ITEMS: dict[str, tuple[list[dict[str, object]], str, dict[str, float]]] = {
    "numbers as text": (
        [{"session_id": "a", "score": "7"}, {"session_id": "b", "score": "1"}],
        "score",
        {"a": 7, "b": 1},
    ),
    "within metrics": (
        [{"doc_id": i, "metrics": {"exact_match": float(i), "num_tokens": 9}} for i in range(2)],
        "exact_match",
        {"0": 0, "1": 1},
    ),
    "true and false": ([{"key": "a", "is_correct": True}, {"key": "b", "is_correct": None}], "is_correct", {"a": 1}),
    "an answer called correct": ([{"id": 1, "correct": "42", "score": 0.5}], "score", {"1": 0.5}),
}


@pytest.mark.parametrize("name", ITEMS)
def test_rows_with_item_and_score_are_read(name: str, tmp_path: Path):
    rows, primary, values = ITEMS[name]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_foreign(path)
    assert (run.primary, list(run.metrics)) == (primary, [primary])
    assert {id_.rstrip(":"): value for id_, value in run.metrics[primary].values.items()} == values
    assert len(run.metrics[primary].asked) == len(rows)


def test_other_questions_with_the_same_number_are_other_items(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": 1, "question": name, "score": 1}))
    first, second = (read_foreign(tmp_path / f"{name}.jsonl").metrics["score"].asked for name in ("a", "b"))
    assert not first & second


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1, "correta": "1"}], "and no score; .*`score`"),
        ([{"n": 1.5, "score": 1}], "and no id of the item; .*`id`"),
        ([{"id": 1, "score": 1}, {"id": 1, "score": 0}], "'id' more than once"),
        ([{"id": 1, "score": "good"}], "and no score"),
        ([{"id": 1, "correct": 42}], "and no score"),
    ],
)
def test_what_is_missing_of_a_score_per_item_is_said(rows: list[object], message: str, tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        read_foreign(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["f(a=1)"]\n[]\n', "lines of JSON lists.*bfcl evaluate"),
        ('{"name": "x",\n "pass_at_1": 0.5}', "no list of scored items.*as JSONL"),
        ('{"name": "x",\n "cases": [1, 2]}', "no list of scored items.*as JSONL"),
    ],
)
def test_files_without_items_lead_somewhere(text: str, message: str, tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_foreign(path)
