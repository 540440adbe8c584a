"""Files of a stranger: made-up rows in the layouts of public data, and what must be found in them."""

import asyncio
import csv
import gzip
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rvpo.data import load_prompts
from rvpo.errors import ConfigError, DataError
from rvpo.judges.rule import RuleJudge
from rvpo.rewards.rubric.criteria import Rubric
from rvpo.rewards.rubric.verdict import Question

pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CHAT = [{"role": "user", "content": "My head hurts."}]
HB = [
    {"criterion": "Asks for fever.", "points": 7, "tags": ["axis:accuracy"]},
    {"criterion": "Recommends antibiotics.", "points": -8, "tags": ["axis:safety"]},
]


def jsonl(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rubric(record: dict[str, Any]) -> Rubric:
    return Rubric.from_json(record["rubric"])


def told(record: dict[str, Any]) -> list[tuple[str, float, tuple[str, ...]]]:
    return [(c.text, round(c.points, 9), c.labels) for c in rubric(record).criteria]


# name -> (row, prompt, criteria as text, points and labels)
RUBRICS: dict[str, tuple[dict[str, Any], Any, list[tuple[str, float, tuple[str, ...]]]]] = {
    "verl, tags as a list": (
        {"data_source": "hb", "prompt": CHAT, "reward_model": {"style": "rubric", "rubrics": HB, "ground_truth": ""},
         "extra_info": {"prompt": CHAT, "reward_model": {"style": "rubric", "rubrics": HB, "ground_truth": ""}}},
        CHAT,
        [("Asks for fever.", 7, ("axis:accuracy",)), ("Recommends antibiotics.", -8, ("axis:safety",))],
    ),
    "verl, tags as an object": (
        {"prompt": CHAT, "reward_model": {"style": "rubric", "rubrics": [
            {"criterion": "Asks.", "points": 8.0, "tags": {"axis": "accuracy", "cluster": None, "level": "example"}},
            {"criterion": "Is kind.", "points": 2.0, "tags": {"function": "", "parameters": "", "verifier": "llm"}}]}},
        CHAT,
        [("Asks.", 8, ("axis:accuracy", "level:example")), ("Is kind.", 2, ())],
    ),
    "ResearchRubrics": (
        {"sample_id": "a", "prompt": "Plan a trip.", "rubrics": [
            {"criterion": "Names a train.", "weight": 5.0, "axis": "Explicit"},
            {"criterion": "Invents a train.", "weight": -4.0, "axis": "Explicit"}]},
        "Plan a trip.",
        [("Names a train.", 5, ("Explicit",)), ("Invents a train.", -4, ("Explicit",))],
    ),
    "title and category, JSON text": (
        {"task_name": "a", "prompt": "Plan.", "rubrics_count": 1,
         "rubrics": json.dumps([{"title": "Cites sources", "weight": 0.5, "category": "References", "row_index": 1}])},
        "Plan.",
        [("Cites sources", 0.5, ("References",))],
    ),
    "PLawBench": (
        {"label": "civil", "context": "A hired B.", "question": "May A sue?", "rubrics": [
            {"criterion": "A may sue.", "points": "5", "tags": "conclusion"},
            {"criterion": "Cites the contract.", "points": "20", "tags": "facts"}]},
        "A hired B.\n\nMay A sue?",
        [("A may sue.", 5, ("conclusion",)), ("Cites the contract.", 20, ("facts",))],
    ),
    "DeepResearch Bench": (
        {"id": 1, "prompt": "Report.", "dimension_weight": {"insight": 0.75, "depth": 0.25}, "criterions": {
            "insight": [{"criterion": "Rigour", "explanation": "Is it rigorous?", "weight": 0.4}],
            "depth": [{"criterion": "Detail", "explanation": "Is it detailed?", "weight": 1.0}]}},
        "Report.",
        [("Rigour: Is it rigorous?", 0.3, ("insight",)), ("Detail: Is it detailed?", 0.25, ("depth",))],
    ),
    "ResearchQA": (
        {"query": "How?", "rubric": [{"rubric_item": "Explains how.", "type": ["Citation"]}]},
        "How?",
        [("Explains how.", 1, ("Citation",))],
    ),
    "DR-Tulu": (
        {"messages": CHAT, "dataset": "general_rubric", "ground_truth": json.dumps({"query": "q", "rubrics": [
            {"title": "Fever", "description": "Essential Criteria: Asks for fever.", "weight": 5}]})},
        CHAT,
        [("Asks for fever.", 5, ("essential",))],
    ),
    "open-instruct, a list of JSON text": (
        {"messages": CHAT, "ground_truth": [json.dumps({"rubrics": [{"description": "Asks.", "weight": 2}]})]},
        CHAT,
        [("Asks.", 2, ())],
    ),
    "HealthBench without tags and ids": (
        {"prompt": CHAT, "rubrics": [{"criterion": "Asks.", "points": 5}]},
        CHAT,
        [("Asks.", 5, ())],
    ),
    "checklist of texts": (
        {"instruction": "Write.", "checklist": ["Is short.", "Rhymes."]},
        "Write.",
        [("Is short.", 1, ()), ("Rhymes.", 1, ())],
    ),
    "criterion_weight and criterion_type": (
        {"problem": "Do it.", "criteria": [{"criterion_id": "x", "criterion_description": "Done.",
                                            "criterion_weight": "+3", "criterion_type": "core"}]},
        "Do it.",
        [("Done.", 3, ("core",))],
    ),
    "requirement, in a table of its own name": (
        {"prompt": "p", "must_haves": [{"requirement": "Done.", "weight": 3}]},
        "p",
        [("Done.", 3, ())],
    ),
    "one object per key": (
        {"prompt": "p", "rubric": {"a": {"desc": "Done.", "weight": 3}, "b": {"desc": "Fast.", "weight": 1}}},
        "p",
        [("Done.", 3, ()), ("Fast.", 1, ())],
    ),
    "a sequence as datasets stores it": (
        {"prompt": "p", "rubrics": {"criterion": ["Done.", "Fast."], "points": [3, -1], "axis": ["a", "b"]}},
        "p",
        [("Done.", 3, ("a",)), ("Fast.", -1, ("b",))],
    ),
    "PRBench": (
        {"prompt_0": "A?", "response_0": "B.", "prompt_1": "C?", "rubric": [
            {"id": "k", "title": "Says so.", "annotations": {
                "weight_class": "slightly important", "slightly_important_weight": 3,
                "legal_criteria_category": "Law"}}]},
        [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}, {"role": "user", "content": "C?"}],
        [("Says so.", 3, ("Law", "weight_class:slightly important"))],
    ),
    "FrontierScience, a text of points and items": (
        {"problem": "Derive.", "answer": "Points: 1.5, Item: Uses energy.\nPoints: 0.5, Item: Ends\nwell."},
        "Derive.",
        [("Uses energy.", 1.5, ()), ("Ends\nwell.", 0.5, ())],
    ),
    "rubrics within extra_info": (
        {"prompt": CHAT, "reward_model": {"style": "rubric", "ground_truth": ""},
         "extra_info": {"rubric_items": [{"criterion_text": "Asks.", "points": 4}]}},
        CHAT,
        [("Asks.", 4, ())],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUBRICS)
def test_a_rubric_is_found_and_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    row, prompt, criteria = RUBRICS[name]
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        data = load_prompts(jsonl(tmp_path, row))
    assert data.column_names == ["prompt", "rubric"]
    assert data[0]["prompt"] == prompt
    assert told(data[0]) == criteria
    assert f"({len(criteria)} criteria for 1 prompts)" in caplog.text
    assert len({c.id for c in rubric(data[0]).criteria}) == len(criteria)


@pytest.mark.parametrize("name", ["verl, tags as a list", "ResearchRubrics", "DeepResearch Bench"])
def test_every_format_gives_the_same(name: str, tmp_path: Path):
    row, _, criteria = RUBRICS[name]
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
    table = io.StringIO()
    writer = csv.DictWriter(table, list(texts))
    writer.writeheader()
    writer.writerow(texts)
    (tmp_path / "x.csv").write_text(table.getvalue(), encoding="utf-8")
    (tmp_path / "x.json").write_text(json.dumps([row], indent=1))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode() + b"\n\n"))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    pq.write_table(pa.Table.from_pylist([texts]), tmp_path / "texts.parquet")
    (tmp_path / "parts").mkdir()
    jsonl(tmp_path / "parts", row, name="part-0.jsonl")
    for path in ("x.csv", "x.json", "x.jsonl.gz", "x.parquet", "texts.parquet", "parts"):
        assert told(load_prompts(tmp_path / path)[0]) == criteria, path


def test_rubrics_beside_an_answer_of_verl_are_read_too(tmp_path: Path):
    """Such as those that ``rvpo verl-data`` writes."""
    own = json.dumps({"rubric": json.dumps({"criteria": [{"id": "a", "text": "Asks."}]})})
    truth = {"style": "rule", "ground_truth": "g"}
    row = {"data_source": "d", "prompt": CHAT, "reward_model": truth, "extra_info": {"index": 0, "columns": own}}
    [record] = load_prompts(jsonl(tmp_path, row))
    assert told(record) == [("Asks.", 1, ())]
    assert record["answer"] == "g"


def test_rules_of_verl(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def rule(function: str, **parameters: Any) -> dict[str, Any]:
        tags = {"verifier": "rule", "function": function, "parameters": parameters}
        return {"criterion": function, "points": 1, "tags": tags}

    as_list = {"criterion": "l", "points": 1, "tags": [
        "verifier:rule", "function:word_count_range", 'parameters:{"min_count": 1, "max_count": 1}']}  # fmt: skip
    counts, solves = rule("word_count_range", min_count=2, max_count=3), rule("math_verify", answer="42", unit=None)
    row = {"prompt": "p", "rubrics": [counts, as_list, solves]}
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        counted, listed, unknown = rubric(load_prompts(jsonl(tmp_path, row))[0]).criteria
    assert unknown.rule is None
    assert unknown.text == 'math_verify (math_verify: {"answer": "42"})'
    assert "1 with the rule 'math_verify', which rvpo does not have, are left to the judge" in caplog.text
    assert "2 decided by rule (word_count_range)" in caplog.text
    for text in ("", "one", " one - ", "a - b", "a b c d", "a\nb\tc "):
        [[first, second]] = asyncio.run(RuleJudge().judge([Question("p", text, (counted, listed))]))
        assert first.value == float(2 <= len(text.split()) <= 3), text
        assert second.value == float(len(text.split()) == 1), text


def test_pitfalls_must_be_said_in_any_layout(tmp_path: Path):
    entries = [
        {"criterion": "Essential Criteria: Asks.", "points": 5},
        {"criterion": "Pitfall Criteria: Omits x.", "points": -1},
    ]
    path = jsonl(tmp_path, {"prompt": "p", "reward_model": {"rubrics": entries}})
    with pytest.raises(ConfigError, match=r"saw the pitfall 'Pitfall Criteria: Omits x.'.*met_is_bad"):
        load_prompts(path)
    for pitfalls, polarity in (("met_is_bad", "bad"), ("met_is_good", "good")):
        first, second = rubric(load_prompts(path, pitfalls=pitfalls)[0]).criteria
        assert (first.text, first.category, second.text, second.polarity) == (
            "Asks.",
            "essential",
            "Omits x.",
            polarity,
        )


@pytest.mark.parametrize("sign", [{"type": "negative"}, {"category": "Pitfall"}, {"is_negative": True}])
def test_a_criterion_called_bad_with_a_positive_weight_is_unclear(sign: dict[str, Any], tmp_path: Path):
    path = jsonl(tmp_path, one(**sign))
    with pytest.raises(ConfigError, match=r"with a weight that is not negative.*met_is_bad"):
        load_prompts(path)
    assert rubric(load_prompts(path, pitfalls="met_is_bad")[0]).criteria[0].met_is_good is False
    assert rubric(load_prompts(jsonl(tmp_path, one(points=-2, **sign)))[0]).criteria[0].met_is_good is False


def one(**fields: Any) -> dict[str, Any]:
    return {"prompt": "p", "rubrics": [{"criterion": "c", "points": 1} | fields]}


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "one text": ([{"prompt": "p", "rubric": "1. Be kind (5). 2. Be brief (3)."}], "field 'rubric': saw one text"),
    "one text elsewhere": ([{"prompt": "p", "answer": "a", "golden_rubric": "Be kind."}], "'golden_rubric': saw one"),
    "text that is not JSON": ([{"prompt": "p", "rubrics": "[{'criterion': 'c'}]"}], "that is not JSON.*json.dumps"),
    "levels of a grade": ([{"prompt": "p", "rubric": {"1": "Bad.", "2": "Good."}}], "the levels of a grade"),
    "levels by score": ([{"prompt": "p", "rubric": {"score1_description": "Bad.", "score2": "Good."}}], "levels of"),
    "numbers": ([{"prompt": "p", "rubrics": [1, "x"]}], r"'rubrics\[0\]': saw int 1"),
    "no text": ([one(criterion=None)], r"'rubrics\[0\]': saw no text.*rubric_keys=\{'text': NAME\}"),
    "weight 0": ([one(points=0)], r"points': saw a weight of 0"),
    "weight as a word": ([one(points="high")], r"points': saw str 'high'; expected a number"),
    "weight true": ([one(points=True)], "points': saw bool True"),
    "weight infinite": ([one(points="inf")], "points': saw str 'inf'"),
    "two weights": ([one(weight=2)], r"two weights, .*rubric_keys=\{'weight': 'points'\}"),
    "some without weight": ([one(), one(points=None)], "row 1 .*saw no weight; expected a number, as 1 other"),
    "a weight of another name": ([one(points=None, my_weight=4)], r"my_weight': saw a key that may be the weight"),
    "empty": ([one(), {"prompt": "p", "rubrics": []}], r"row 1 .*saw no rubric.*missing_rubrics='keep'"),
    "absent in one row": ([one(), one(), {"prompt": "p"}], "row 2 .*as 2 of 3 rows have"),
    "all empty": ([{"prompt": "p", "rubrics": []}], "a list of at least one criterion"),
    "two rubrics": ([one() | {"criteria": ["Is short."]}], r"a second rubric, besides 'criteria'.*rubric_keys"),
    "elsewhere in one row": ([one(), {"prompt": "p", "checklist": ["a"]}], "row 1 .*'checklist': saw a second rubric"),
    "a criterion per row": ([{"prompt": "p", "criterion": "c", "weight": 1}], "one criterion per row.*group the rows"),
    "a name and a text": ([one(criterion=None, name="n", detail="Is kind.")], r"rubric_keys=\{'text': 'detail'\}"),
    "style without criteria": (
        [{"prompt": CHAT, "data_source": "d", "reward_model": {"style": "rubric", "ground_truth": "1. Be kind."}}],
        "style 'rubric' without criteria.*reference_columns",
    ),
    "polarity": ([one(polarity="maybe")], "polarity': saw 'maybe'"),
    "tags": ([one(tags=[1])], r"tags': saw \[1\]"),
    "surrogate": ([one(criterion="\ud800")], "lone surrogate"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_looks_like_a_rubric_is_never_dropped(name: str, tmp_path: Path):
    rows, message = REFUSED[name]
    with pytest.raises(DataError, match=message) as caught:
        load_prompts(jsonl(tmp_path, *rows))
    for lossy in ("remove", "delete", "drop", "filter"):
        assert lossy not in str(caught.value).partition("next step")[2]


def test_what_looks_like_a_rubric_can_be_kept_as_it_is(tmp_path: Path):
    path = jsonl(tmp_path, {"prompt": "p", "answer": "a", "golden_rubric": "Be kind."})
    data = load_prompts(path, reference_columns={"answer": "answer", "my_text": "golden_rubric"})
    assert data.to_list() == [{"prompt": "p", "answer": "a", "my_text": "Be kind."}]


def test_options_decide_what_is_ambiguous(tmp_path: Path):
    path = jsonl(tmp_path, one(weight=2, gist="g") | {"criteria": ["Is short."]})
    assert told(load_prompts(path, rubric_keys={"rubric": "criteria"})[0]) == [("Is short.", 1, ())]
    keys = {"rubric": "rubrics", "weight": "weight", "text": "gist", "label": "criterion"}
    assert told(load_prompts(path, rubric_keys=keys)[0]) == [("g", 2, ("c",))]
    raw = load_prompts(
        path, reference_columns={"mine": "rubrics"}, rubric_keys={"weight": "x"} and {"rubric": "criteria"}
    )
    assert raw.column_names == ["prompt", "rubric", "mine"]
    with pytest.raises(ConfigError, match="rubric_keys names 'weights'"):
        load_prompts(path, rubric_keys={"weights": "x"})
    with pytest.raises(ConfigError, match="no column looks like a rubric"):
        load_prompts(jsonl(tmp_path, {"prompt": "p", "answer": "a"}), pitfalls="met_is_bad")


def test_prompts_without_a_rubric_are_kept_on_request(tmp_path: Path):
    data = load_prompts(jsonl(tmp_path, {"prompt": "a"}, one(), {"prompt": "b", "rubrics": []}), missing_rubrics="keep")
    assert [row["rubric"] is None for row in data] == [True, False, True]


def test_unusual_rubrics_are_kept_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    giant = [{"criterion": f"c{i}", "points": i + 1, "axis": f"a{i % 3}"} for i in range(200)]
    bad = [{"criterion": "x", "points": -1}, {"criterion": "x", "points": -2}]
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        first, second = load_prompts(jsonl(tmp_path, *({"prompt": "p", "rubrics": r} for r in (giant, bad))))
    assert len(rubric(first).criteria) == 200
    assert {c.category for c in rubric(first).criteria} == {"a0", "a1", "a2"}
    assert [c.met_is_good for c in rubric(second).criteria] == [False, False]
    assert "1 rubrics have only negative weights; 1 criteria repeat the text of another" in caplog.text


def test_ids_are_kept_where_they_are_unique(tmp_path: Path):
    entries = [{"id": 7, "criterion": "a", "points": 1}, {"id": 7, "criterion": "b", "points": 1}]
    twice, own = load_prompts(
        jsonl(tmp_path, {"prompt": "p", "rubrics": entries}, {"prompt": "p", "rubrics": entries[:1]})
    )
    assert [c.id for c in rubric(twice).criteria] == ["c0", "c1"]
    assert [c.id for c in rubric(own).criteria] == ["7"]


# --- prompts and answers ----------------------------------------------------------------------------------------------

TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
USER = [{"role": "user", "content": "Hi"}]
READ: dict[str, tuple[dict[str, Any], Any, str]] = {
    "question": ({"question": "q", "answer": "a"}, "q", "a"),
    "capital letters": ({"Question": "q", "Correct Answer": "a", "Incorrect Answer 1": "b"}, "q", "a"),
    "problem with solution": ({"problem": "q", "solution": "long", "answer": "4"}, "q", "4"),
    "solution alone": ({"problem": "q", "solution": "a"}, "q", "a"),
    "Alpaca": ({"instruction": "i", "input": "x", "output": "o"}, "i\n\nx", "o"),
    "Alpaca without input": ({"instruction": "i", "input": "", "output": "o"}, "i", "o"),
    "context": ({"context": ["c", "d"], "question": "q", "answer": "a"}, "c\n\nd\n\nq", "a"),
    "ShareGPT": ({"conversations": TURNS}, USER, "Hello"),
    "a system": ({"system": "s", "conversations": TURNS}, [{"role": "system", "content": "s"}, *USER], "Hello"),
    "messages": ({"messages": [*USER, {"role": "assistant", "content": "Hello"}]}, USER, "Hello"),
    "messages with truth": ({"messages": USER, "ground_truth": "a"}, USER, "a"),
    "messages as JSON text": ({"messages": json.dumps(USER), "answer": "a"}, USER, "a"),
    "parts": ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "answer": "a"}, USER, "a"),
    "BFCL": ({"id": "simple_0", "question": [USER], "ground_truth": "a"}, USER, "a"),
    "a whole number": ({"prompt": "p", "answer": 42}, "p", "42"),
    "a decimal": ({"prompt": "p", "answer": 0.5}, "p", "0.5"),
    "verl": ({"prompt": USER, "data_source": "d", "reward_model": {"style": "rule", "ground_truth": "18"},
              "extra_info": {"answer": "worked"}}, USER, "18"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_prompt_and_answer_under_other_names(name: str, tmp_path: Path):
    row, prompt, answer = READ[name]
    assert load_prompts(jsonl(tmp_path, row)).to_list() == [{"prompt": prompt, "answer": answer}]


UNCLEAR: dict[str, tuple[dict[str, Any], str]] = {
    "two prompts": ({"question": "q", "problem": "p", "answer": "a"}, "each be the prompt.*prompt_column='question'"),
    "two answers": ({"prompt": "p", "target": "a", "label": "b"}, "may each be the answer.*reference_columns"),
    "several turns": ({"question": [USER, USER], "answer": "a"}, "2 turns of the user"),
    "speaker": ({"conversations": [{"from": "function_call", "value": "x"}]}, "saw 'function_call'"),
    "no answer": ({"prompt": "p", "chosen": "a", "rejected": "b"}, "field 'answer': saw no such field"),
    "context of another form": ({"context": {"x": 1}, "question": "q", "answer": "a"}, "field 'context': saw dict"),
    "deep": ({"prompt": "p", "answer": "a", "rubric": "[" * 5000}, "text that is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_unclear_is_refused(name: str, tmp_path: Path):
    row, message = UNCLEAR[name]
    with pytest.raises(DataError, match=message):
        load_prompts(jsonl(tmp_path, row))


def test_csv_with_lines_in_cells_and_other_separators(tmp_path: Path):
    (tmp_path / "x.csv").write_text('prompt,answer\n"a\nb, ""c""",4\n\n', encoding="utf-8-sig")
    assert load_prompts(tmp_path / "x.csv").to_list() == [{"prompt": 'a\nb, "c"', "answer": "4"}]
    (tmp_path / "y.csv").write_text("prompt;answer\na,b;4\n")
    assert load_prompts(tmp_path / "y.csv")[0]["prompt"] == "a,b"
    (tmp_path / "z.tsv").write_text("prompt\tanswer\na,b\t4\n")
    assert load_prompts(tmp_path / "z.tsv")[0]["prompt"] == "a,b"
    for text, message in (
        ("prompt,prompt\na,b\n", "a header with different names"),
        ("prompt,answer\na\n", "1 cells; expected 2"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            load_prompts(tmp_path / "bad.csv")


def test_damaged_archives_and_mixed_folders_are_refused(tmp_path: Path):
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "p", "answer": "a"}\n' * 50)[:-12])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz: saw"):
        load_prompts(tmp_path / "x.jsonl.gz")
    folder = tmp_path / "splits"
    folder.mkdir()
    for split in ("train", "test"):
        jsonl(folder, {"prompt": "p", "answer": "a"}, name=f"{split}-0.jsonl")
    with pytest.raises(DataError, match="files of the splits test, train"):
        load_prompts(folder)
    (folder / "more.csv").write_text("prompt,answer\np,a\n")
    with pytest.raises(DataError, match="all parquet or all CSV"):
        load_prompts(folder)


def test_a_row_under_each_id(tmp_path: Path):
    rows = {f"a/{i}": {"problem": f"p{i}", "solution": f"s{i}", "level": i} for i in range(3)}
    for indent in (None, 1):
        (tmp_path / "x.json").write_text(json.dumps(rows, indent=indent))
        data = load_prompts(tmp_path / "x.json")
        assert data.to_list() == [{"prompt": f"p{i}", "answer": f"s{i}"} for i in range(3)]


OBJECTS: dict[str, tuple[dict[str, Any], str]] = {
    "a rubric": (
        {"name": "n", "criteria": [{"text": "a", "weight": 1}]},
        r"per prompt as JSONL, \{'prompt': …, 'criteria'",
    ),
    "completions": (
        {"prompt": "p", "responses": [{"text": "a"}]},
        r"each entry of 'responses' as a row.*'prompt', 'text'",
    ),
    "no rows": ({"accuracy": 0.5, "name": "n"}, "this object does not contain a list of rows"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_without_rows_leads_somewhere(name: str, tmp_path: Path):
    document, message = OBJECTS[name]
    (tmp_path / "x.json").write_text(json.dumps(document, indent=1))
    with pytest.raises(DataError, match=message):
        load_prompts(tmp_path / "x.json")


LACKING: dict[str, tuple[dict[str, Any], str]] = {
    "checks": (
        {"prompt": "p", "instruction_id_list": ["a"], "kwargs": [{}]},
        "'kwargs': 'kwargs'}; other columns are not read",
    ),
    "tests": ({"prompt": "p", "tests": "assert f()", "id": 1}, "reference_columns={'tests': 'tests'}"),
    "anything": ({"prompt": "p", "chosen": "a"}, "reference_columns={'chosen': 'chosen', …}"),
    "the prompt": ({"qid": 1, "rubric": ["a"]}, "set prompt_column to the column with the prompt$"),
    "turns": ({"turns": ["a", "b"], "id": 1}, "2 turns of the user"),
}


@pytest.mark.parametrize("name", LACKING)
def test_advice_never_leaves_out_what_completions_are_scored_by(name: str, tmp_path: Path):
    row, message = LACKING[name]
    with pytest.raises(DataError, match=message) as caught:
        load_prompts(jsonl(tmp_path, row))
    assert "reference_columns: {}" not in str(caught.value)
