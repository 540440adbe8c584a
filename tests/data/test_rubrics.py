"""Readers of rubrics: each layout gives prompt and rubric, and what is wrong is named by its place."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rvpo.data import load_prompts
from rvpo.errors import ConfigError, DataError
from rvpo.recipe import DataSection
from rvpo.rewards.rubric import Criterion, Rubric

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rubric(row: dict[str, Any]) -> Rubric:
    return Rubric.from_json(row["rubric"])


# --- Rubrics as Rewards -----------------------------------------------------------------------------------------------


def item(description: str, weight: Any = 3) -> dict[str, Any]:
    return {"title": "A Title", "description": description, "weight": weight}


ESSENTIAL = item("Essential Criteria: Identifies non-contrast CT.", 5)
PITFALL = item("Pitfall Criteria: Does not mention the dose.", -2)


def rar(*items: Any, **fields: Any) -> dict[str, Any]:
    return {
        "question": "Which scan shows a stone?",
        "reference_answer": "A non-contrast CT.",
        "question_source": "unit test",
        "rubric": list(items),
        "rubric_list": [entry["description"] for entry in items if isinstance(entry, dict) and "description" in entry],
        "rubric_count": len(items),
    } | fields


def load_rar(path: Path, *rows: Any, pitfalls: str | None = "met_is_bad", **options: Any) -> Any:
    return load_prompts(write_jsonl(path / "x", list(rows)), layout="rar", pitfalls=pitfalls, **options)


def test_rar_row(tmp_path: Path):
    row = rar(
        ESSENTIAL,
        item("important criteria:  Explains why. ", 4),
        item("Optional: Is concise.", 1),
        item("Pitfall Criterion: Recommends an MRI.", -1),
    )
    data = load_rar(tmp_path, row)
    assert data.column_names == ["prompt", "rubric"]
    assert data[0]["prompt"] == "Which scan shows a stone?"
    assert rubric(data[0]).criteria == (
        Criterion("c0", "Identifies non-contrast CT.", 5.0, category="essential"),
        Criterion("c1", "Explains why.", 4.0, category="important"),
        Criterion("c2", "Is concise.", 1.0, category="optional"),
        Criterion("c3", "Recommends an MRI.", -1.0, "bad", "pitfall"),
    )


@pytest.mark.parametrize(("pitfalls", "reward_if_met"), [("met_is_bad", 0.0), ("met_is_good", 1.0)])
def test_pitfalls_mean_what_the_option_says(pitfalls: str, reward_if_met: float, tmp_path: Path):
    """The weight is negative in RaR-Medicine and RaR-Science alike; their texts point in opposite directions."""
    criterion = rubric(load_rar(tmp_path, rar(ESSENTIAL, PITFALL), pitfalls=pitfalls)[0]).criteria[1]
    assert criterion.points == -2.0
    assert criterion.reward(1.0) == reward_if_met


def test_a_pitfall_needs_the_option(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load_rar(tmp_path, rar(ESSENTIAL), rar(ESSENTIAL, PITFALL), pitfalls=None)
    message = str(caught.value)
    assert "x, row 1 (line 2), field 'rubric[1].description': saw the pitfall 'Pitfall Criteria: Does not" in message
    assert "pitfalls='met_is_bad'" in message
    assert "pitfalls='met_is_good'" in message
    assert "data.pitfalls in a recipe" in message
    assert len(load_rar(tmp_path, rar(ESSENTIAL), pitfalls=None)) == 1


def test_criteria_without_a_category_are_kept_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = [rar(ESSENTIAL, item("Mandatory Criteria: Names it.", 4)), rar(item("Forgets the dose.", -1))]
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        data = load_rar(tmp_path, *rows)
    assert rubric(data[0]).criteria[1] == Criterion("c1", "Mandatory Criteria: Names it.", 4.0, category="unlabelled")
    assert rubric(data[1]).criteria[0] == Criterion("c0", "Forgets the dose.", -1.0, "bad", "pitfall")
    assert "2 of 3 criteria do not name one of the four categories" in caplog.text


RAR_MALFORMED = {
    "no question": (rar(ESSENTIAL, question=None), "field 'question': saw null"),
    "blank question": (rar(ESSENTIAL, question=" "), "field 'question': saw ' '"),
    "no rubric": ({"question": "q"}, "field 'rubric': saw no such field"),
    "no criteria": (rar(), r"field 'rubric': saw list \[\]; expected a list of at least one .*repair the row"),
    "rubric text": (rar(rubric="Essential"), "field 'rubric': saw str 'Essential'"),
    "criterion text": (rar(ESSENTIAL, "x"), "field 'rubric': saw list"),
    "no description": (rar({"weight": 1}), r"field 'rubric\[0\].description': saw no such field"),
    "prefix alone": (
        rar(item("Essential Criteria: ", 5)),
        r"field 'rubric': saw criteria that do not fit: .*text is ''",
    ),
    "no weight": (rar(ESSENTIAL, item("Optional: x", None)), r"field 'rubric\[1\].weight': saw null"),
    "weight 0": (
        rar(item("Optional: x", 0)),
        r"field 'rubric': saw .* criterion 0 \('c0'\): points is 0; expected",
    ),
    "weight text": (rar(item("Optional: x", "2")), "points is '2'"),
    "negative": (rar(item("Optional: x", -1)), r"'rubric\[0\].weight': saw -1 of the category 'optional'.*positive"),
    "surrogate": (rar(item("Optional: \ud800", 1)), "lone surrogate"),
}


@pytest.mark.parametrize(("row", "message"), RAR_MALFORMED.values(), ids=RAR_MALFORMED.keys())
def test_malformed_rar(row: Any, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=r"x, row 1 \(line 2\), .*" + message):
        load_rar(tmp_path, rar(ESSENTIAL), row)


def test_rar_reference_answer_on_request(tmp_path: Path):
    data = load_rar(tmp_path, rar(ESSENTIAL), reference_columns={"answer": "reference_answer"})
    assert data.column_names == ["prompt", "rubric", "answer"]
    assert data[0]["answer"] == "A non-contrast CT."


def test_rar_from_every_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [rar(ESSENTIAL, PITFALL), rar(ESSENTIAL)]
    options: dict[str, Any] = {"layout": "rar", "pitfalls": "met_is_bad"}
    expected = load_rar(tmp_path, *rows).to_list()
    assert load_prompts(write_parquet(tmp_path / "p", rows), **options).to_list() == expected
    table = datasets.Dataset.from_list(rows)
    table.save_to_disk(tmp_path / "d")
    assert load_prompts(tmp_path / "d", **options).to_list() == expected
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "splits")
    assert load_prompts(tmp_path / "splits", split="test", **options).to_list() == expected
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    assert load_prompts("anisha2102/RaR-Medicine", split="train", **options).to_list() == expected


# --- HealthBench ------------------------------------------------------------------------------------------------------

TURNS = [
    {"role": "user", "content": "My head hurts."},
    {"role": "assistant", "content": "Since when?"},
    {"role": "user", "content": "Since today."},
]


def healthbench(**fields: Any) -> dict[str, Any]:
    return {
        "prompt": TURNS,
        "prompt_id": "26b5c67b",
        "rubrics": [
            {"criterion": "Asks for fever.", "points": 7, "tags": ["level:example", "axis:context_awareness"]},
            {"criterion": "Recommends antibiotics.", "points": -8, "tags": ["axis:accuracy", "cluster:x_y"]},
        ],
        "example_tags": ["theme:context_seeking", "physician_agreed_category:enough-context"],
        "ideal_completions_data": None,
        "canary": "healthbench:1",
    } | fields


def test_healthbench_row(tmp_path: Path):
    data = load_prompts(write_jsonl(tmp_path / "x", [healthbench()]))  # known by its keys
    assert data.column_names == ["prompt", "rubric", "example_tags"]
    assert data[0]["prompt"] == TURNS
    assert json.loads(data[0]["example_tags"]) == ["theme:context_seeking", "physician_agreed_category:enough-context"]
    assert rubric(data[0]) == Rubric(
        (
            Criterion("c0", "Asks for fever.", 7.0, tags=("level:example", "axis:context_awareness")),
            Criterion("c1", "Recommends antibiotics.", -8.0, tags=("axis:accuracy", "cluster:x_y")),
        ),
        id="26b5c67b",
    )
    assert [criterion.met_is_good for criterion in rubric(data[0]).criteria] == [True, False]


def test_healthbench_from_parquet(tmp_path: Path):
    rows = [healthbench(), healthbench(example_tags=[])]
    expected = load_prompts(write_jsonl(tmp_path / "x", rows)).to_list()
    assert load_prompts(write_parquet(tmp_path / "y", rows)).to_list() == expected


def one(**fields: Any) -> list[dict[str, Any]]:
    return [{"criterion": "c", "points": 1, "tags": []} | fields]


HEALTHBENCH_MALFORMED = {
    "role": (healthbench(prompt=[{"role": "human", "content": "x"}]), r"field 'prompt\[0\].role': saw 'human'"),
    "no rubrics": (healthbench(rubrics=[]), r"field 'rubrics': saw list \[\]"),
    "blank criterion": (healthbench(rubrics=one(criterion="")), r"field 'rubrics\[0\].criterion': saw ''"),
    "no points": (healthbench(rubrics=one(points=None)), r"field 'rubrics\[0\].points': saw null"),
    "points 0": (
        healthbench(rubrics=one(points=0)),
        "field 'rubrics': saw .*points is 0.0; expected a finite number",
    ),
    "tags text": (healthbench(rubrics=one(tags="axis:x")), "field 'rubrics': saw .*tags is 'axis:x'"),
    "example tags": (healthbench(example_tags="theme:x"), "field 'example_tags': saw 'theme:x'"),
}


@pytest.mark.parametrize(("row", "message"), HEALTHBENCH_MALFORMED.values(), ids=HEALTHBENCH_MALFORMED.keys())
def test_malformed_healthbench(row: Any, message: str, tmp_path: Path):
    path = write_jsonl(tmp_path / "x", [healthbench(), row])
    with pytest.raises(DataError, match=r"x, row 1 \(line 2\), .*" + message):
        load_prompts(path)


# --- our own layout ---------------------------------------------------------------------------------------------------

YAML = """\
shared:
  style:
    - {id: short, text: At most 80 words., rule: {max_words: 80}}
  tone: [{id: kind, text: Is kind., category: optional}]
prompts:
  - id: q17
    prompt: How much ibuprofen may an adult take in a day?
    use: [style, tone]
    criteria:
      - {id: dose, text: States the maximum daily dose., points: 5, category: essential, tags: ["axis:accuracy"]}
      - {id: scare, text: Alarms the reader without need., points: -2}
  - prompt: Say hello.
    use: [tone]
"""
SHORT = Criterion("short", "At most 80 words.", rule={"max_words": 80})
KIND = Criterion("kind", "Is kind.", category="optional")
DOSE = Criterion("dose", "States the maximum daily dose.", 5.0, category="essential", tags=("axis:accuracy",))
SCARE = Criterion("scare", "Alarms the reader without need.", -2.0)


@pytest.mark.parametrize("layout", ["auto", "rubrics"])
def test_yaml_with_shared_criteria(layout: str, tmp_path: Path):
    data = load_prompts(write_text(tmp_path / "x.yaml", YAML), layout=layout)
    assert data.column_names == ["prompt", "rubric"]
    assert data["prompt"][:] == ["How much ibuprofen may an adult take in a day?", "Say hello."]
    assert [rubric(row) for row in data] == [Rubric((SHORT, KIND, DOSE, SCARE), "q17"), Rubric((KIND,))]


CRITERIA = [{"id": "kind", "text": "Is kind.", "category": "optional"}]
ENTRY: dict[str, Any] = {"prompt": "Say hello.", "criteria": CRITERIA}


def test_a_list_in_yaml_and_jsonl_give_the_same(tmp_path: Path):
    chat = {"prompt": TURNS, "criteria": CRITERIA, "id": "two"}
    rows = [ENTRY | {"prompt": TURNS[:1]}, chat]
    expected = [Rubric((KIND,)), Rubric((KIND,), "two")]
    for path in (write_text(tmp_path / "x.yml", json.dumps(rows)), write_jsonl(tmp_path / "y", rows)):
        data = load_prompts(path)
        assert [rubric(row) for row in data] == expected
        assert data[1]["prompt"] == TURNS


def test_further_columns_on_request(tmp_path: Path):
    rows = [ENTRY | {"answer": "Hello!", "level": 3}]
    for path in (write_text(tmp_path / "x.yaml", json.dumps(rows)), write_jsonl(tmp_path / "y", rows)):
        data = load_prompts(path, layout="rubrics", reference_columns={"answer": "answer", "level": "level"})
        assert data[0]["answer"] == "Hello!"
        assert data[0]["level"] == 3
        with pytest.raises(DataError, match="field 'answer': saw an unknown key; expected prompt, criteria, id, use"):
            load_prompts(path, layout="rubrics")


PLAIN_MALFORMED = {
    "typo": ({"prompt": "p", "criterias": CRITERIA}, "field 'criterias': saw an unknown key; .*reference_columns"),
    "no prompt": ({"criteria": CRITERIA}, "field 'prompt': saw no such field"),
    "no criteria": ({"prompt": "p"}, "field 'criteria': saw no such field"),
    "criteria text": (ENTRY | {"criteria": "x"}, "field 'criteria': saw 'x'"),
    "empty": (ENTRY | {"criteria": []}, r"field 'criteria': saw .*criteria is \[\]; expected a list of at least one"),
    "unknown field": (
        ENTRY | {"criteria": [{"id": "a", "txt": "t"}]},
        "has the unknown key 'txt'; expected one of id, text",
    ),
    "same id": (ENTRY | {"criteria": CRITERIA * 2}, "criteria 0 and 1 both have the id 'kind'"),
    "id": (ENTRY | {"id": 3}, "rubric: id is 3"),
    "use": (ENTRY | {"use": ["style"]}, r"field 'use': saw \['style'\]; expected a list of the names \[\]"),
    "surrogate": (ENTRY | {"criteria": [{"id": "a", "text": "\ud800"}]}, "field 'criteria': saw .*valid Unicode"),
}


@pytest.mark.parametrize(("row", "message"), PLAIN_MALFORMED.values(), ids=PLAIN_MALFORMED.keys())
def test_malformed_entry(row: Any, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=r"x, row 1 \(line 2\), .*" + message):
        load_prompts(write_jsonl(tmp_path / "x", [ENTRY, row]))
    with pytest.raises(DataError, match=r"x.yaml, row 1, .*" + message):
        load_prompts(write_text(tmp_path / "x.yaml", json.dumps([ENTRY, row])))


YAML_MALFORMED = {
    "no YAML": ("prompts: [", "saw invalid YAML"),
    "text": ("hello", "saw str 'hello'; expected a list of entries, or {prompts"),
    "no prompts": ("shared: {}", r"saw the keys \['shared'\]"),
    "further key": ("{prompts: [], prompt: x}", r"saw the keys \['prompts', 'prompt'\]"),
    "shared": ("{prompts: [], shared: [a]}", "shared: .*names with lists of criteria"),
    "shared text": ("{prompts: [], shared: {a: b}}", "shared: .*names with lists of criteria"),
    "entry": ("[hello]", "row 0: saw str 'hello'"),
    "no entries": ("prompts: []", "saw 0 rows"),
    "repeated key": ("- {prompt: a, prompt: b}", "the key 'prompt' occurs twice"),
    "python object": ("- !!python/object/apply:os.getcwd []", "saw invalid YAML .*could not determine a constructor"),
    "date in a rule": (
        "- {prompt: p, criteria: [{id: a, text: t, rule: {x: 2024-01-01}}]}",
        "row 0, .*criteria that do",
    ),
    "cycle": (
        "- {prompt: p, criteria: [{id: a, text: t, rule: &r {x: *r}}]}",
        r"saw invalid YAML .*alias \*r is inside",
    ),
    "yes is no text": ("- {prompt: p, criteria: [{id: a, text: yes}]}", "text is True; expected text"),
    "same id in shared": (YAML.replace("id: dose", "id: kind"), "row 0, .*both have the id 'kind'"),
}


@pytest.mark.parametrize(("text", "message"), YAML_MALFORMED.values(), ids=YAML_MALFORMED.keys())
def test_malformed_yaml(text: str, message: str, tmp_path: Path):
    with pytest.raises(DataError, match="x.yaml[:,] .*" + message):
        load_prompts(write_text(tmp_path / "x.yaml", text))


# --- the layouts among the others -------------------------------------------------------------------------------------


def test_auto_knows_the_layouts_by_their_columns(tmp_path: Path):
    with pytest.raises(ConfigError, match="saw the pitfall"):
        load_prompts(write_jsonl(tmp_path / "x", [rar(PITFALL)]))
    data = load_prompts(write_parquet(tmp_path / "y", [rar(PITFALL)]), pitfalls="met_is_good")
    assert rubric(data[0]).criteria[0].polarity == "good"


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_auto_leaves_what_the_general_layouts_can_read(write: Any, tmp_path: Path):
    with_answer = load_prompts(write(tmp_path / "x", [ENTRY | {"answer": "a"}]))
    assert with_answer.column_names == ["prompt", "rubric", "answer"]
    assert rubric(with_answer[0]) == Rubric((KIND,))
    own_columns = load_prompts(
        write(tmp_path / "y", [{"prompt": "p", "criteria": "c"}]), reference_columns={"c": "criteria"}
    )
    assert own_columns.to_list() == [{"prompt": "p", "c": "c"}]
    question = load_prompts(write(tmp_path / "z", [rar(ESSENTIAL)]), prompt_column="question", reference_columns={})
    assert question.column_names == ["prompt", "rubric"]


def test_the_other_layouts_still_need_their_answer(tmp_path: Path):
    with pytest.raises(DataError, match="field 'answer': saw no such field"):
        load_prompts(write_jsonl(tmp_path / "x", [{"prompt": "p"}]))


def test_the_common_options_work(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    entries = [ENTRY | {"prompt": "x" * n, "id": str(n)} for n in range(1, 11)]
    path = write_text(tmp_path / "x.yaml", json.dumps(entries))
    options: dict[str, Any] = {
        "shuffle_seed": 3,
        "max_prompt_chars": 8 + len("Be brief."),
        "system_prompt": "Be brief.",
    }
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        train = load_prompts(path, limit=5, **options)
    assert "2 of 10 prompts are longer" in caplog.text
    held_out = load_prompts(path, offset=5, **options)
    assert sorted(rubric(row).id or "" for row in [*train, *held_out]) == [str(n) for n in range(1, 9)]
    assert train[0]["prompt"][0] == {"role": "system", "content": "Be brief."}
    assert len(train[0]["prompt"][1]["content"]) == int(rubric(train[0]).id or "")


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"pitfalls": "bad"}, "pitfalls='bad'; expected met_is_bad or met_is_good"),
    ({"layout": "rlla", "pitfalls": "met_is_bad"}, "pitfalls or rubric_keys with layout='rlla'"),
    ({"prompt_column": "question"}, "prompt_column='question' with layout='rar'; expected 'prompt'"),
    ({"reference_columns": {"rubric": "rubric"}}, "result column 'rubric', which layout='rar' makes itself"),
    ({"split": "train"}, "split='train' with layout='rar'; .*name the file of that split"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_that_cannot_work(options: dict[str, Any], message: str, tmp_path: Path):
    path = write_jsonl(tmp_path / "x", [rar(ESSENTIAL)])
    with pytest.raises(ConfigError, match=message):
        load_prompts(path, **({"layout": "rar"} | options))


def test_a_layout_is_read_from_any_storage(tmp_path: Path):
    listed = write_text(tmp_path / "x", json.dumps([rar(ESSENTIAL)]))
    assert load_prompts(listed, layout="rar").to_list() == load_rar(tmp_path, rar(ESSENTIAL)).to_list()
    table = write_parquet(tmp_path / "y", [ENTRY])
    assert rubric(load_prompts(table, layout="rubrics")[0]) == Rubric((KIND,))
    with pytest.raises(ConfigError, match="layout='healthbench' with YAML"):
        load_prompts(write_text(tmp_path / "x.yaml", YAML), layout="healthbench")


def test_a_table_of_another_kind(tmp_path: Path):
    path = write_parquet(tmp_path / "x", [{"prompt": "p", "answer": "a"}])
    with pytest.raises(DataError, match=r"saw no column 'question', 'rubric'; .*set the right layout"):
        load_prompts(path, layout="rar")


def test_a_recipe_can_say_it_all(tmp_path: Path):
    path = write_jsonl(tmp_path / "x", [rar(ESSENTIAL, PITFALL)])
    section = DataSection.model_validate({"path": str(path), "layout": "rar", "pitfalls": "met_is_bad"})
    options = section.model_dump()
    assert load_prompts(options.pop("path"), **options).column_names == ["prompt", "rubric"]


# --- what a criterion of any layout must not lose ---------------------------------------------------------------------


def any_layout(tmp_path: Path, *criteria: Any, **options: Any) -> Rubric:
    rows = [{"prompt": f"question {i}", "rubrics": list(criteria)} for i in range(2)]
    return rubric(load_prompts(write_jsonl(tmp_path / "rows.jsonl", rows), **options)[0])


@pytest.mark.parametrize(
    "said",
    [
        {"is_penalty": "true"},
        {"is_negative": 1},
        {"Pitfall": "yes"},
        {"penalty": -5},
        {"is_positive": False},
        {"positive": "no"},
        {"desirable": 0},
        {"sign": "-"},
        {"sign": -1},
        {"direction": "negative"},
        {"kind": "Penalty"},
        {"category": "Pitfalls"},
        {"category": "Pitfall Criteria"},
        {"type": "deduction"},
        {"type": "must_not"},
        {"tags": ["axis:accuracy", "kind:should-not-have"]},
    ],
    ids=str,
)
def test_a_criterion_that_is_called_bad_is_not_read_as_good(said: dict[str, Any], tmp_path: Path):
    bad = {"criterion": "Recommends 10 g a day.", "points": 5, **said}
    good = {"criterion": "Names the dose.", "points": 5, "is_penalty": "false", "penalty": 0, "sign": "+"}
    with pytest.raises(ConfigError, match=r"field 'rubrics\[0\]': saw a criterion labelled .* set the option pitfalls"):
        any_layout(tmp_path, bad, good)
    read = any_layout(tmp_path, bad, good, pitfalls="met_is_bad")
    assert [criterion.reward(1.0) for criterion in read.criteria] == [0.0, 1.0]
    assert any_layout(tmp_path, {**bad, "points": -5}).criteria[0].reward(1.0) == 0.0, "the sign suffices"


@pytest.mark.parametrize(
    "said",
    [{"category": "Negation"}, {"type": "avoidance of jargon"}, {"is_positive": True}, {"sign": "+"}, {"penalty": ""}],
    ids=str,
)
def test_other_labels_do_not_make_a_criterion_bad(said: dict[str, Any], tmp_path: Path):
    assert any_layout(tmp_path, {"criterion": "Names the dose.", "points": 5, **said}).criteria[0].reward(1.0) == 1.0


@pytest.mark.parametrize("key", ["pts", "value", "marks", "grade", "credit", "权重", "score_if_met", "delta"])
def test_a_number_that_may_be_the_weight_is_not_ignored(key: str, tmp_path: Path):
    criteria = [{"criterion": "Names the dose.", key: -3}, {"criterion": "Is short.", key: "2"}]
    with pytest.raises(DataError, match=rf"'rubrics\[0\]\.{key}': saw a key that may be the weight; expected .*{key}"):
        any_layout(tmp_path, *criteria)
    read = any_layout(tmp_path, *criteria, rubric_keys={"weight": key})
    assert [criterion.points for criterion in read.criteria] == [-3.0, 2.0]


@pytest.mark.parametrize(
    "group",
    [
        {"name": "Accuracy", "weight": 2, "criteria": [{"text": "Names the dose."}, {"text": "Names the drug."}]},
        {"criterion": "Is accurate.", "points": 2, "sub_criteria": ["Names the dose.", "Names the drug."]},
        {"title": "Accuracy", "points": 2, "items": ["Names the dose.", "Names the drug."]},
        {"title": "Accuracy", "points": 2, "checklist": json.dumps(["Names the dose.", "Names the drug."])},
    ],
    ids=str,
)
def test_criteria_inside_a_criterion_are_not_ignored(group: dict[str, Any], tmp_path: Path):
    with pytest.raises(DataError, match="saw 2 criteria inside a criterion; expected one list; next step: "):
        any_layout(tmp_path, group)
    name = next(key for key in ("name", "criterion", "title") if key in group)
    assert any_layout(tmp_path, group, rubric_keys={"text": name}).criteria[0].text == group[name]


def test_fields_of_our_own_layout_need_no_id(tmp_path: Path):
    rows = [{"text": "At most 80 words.", "rule": {"max_words": 80}}, {"text": "Is polite.", "scale": [1, 5]}]
    first, second = any_layout(tmp_path, *rows, {"text": "Names the dose."}).criteria[:2]
    assert (first.id, first.rule) == ("c0", {"max_words": 80})
    assert (second.id, second.scale) == ("c1", (1, 5))


def test_keys_that_only_other_rows_have_do_not_count(tmp_path: Path):
    """Arrow gives every row of a table the keys of all rows."""
    rows = [{"prompt": "a", "rubric": {"dose": "Names it."}}, {"prompt": "b", "rubric": {"drug": "Names it."}}]
    read = load_prompts(write_parquet(tmp_path / "rows.parquet", rows))
    assert [[criterion.id for criterion in rubric(row).criteria] for row in read] == [["dose"], ["drug"]]
