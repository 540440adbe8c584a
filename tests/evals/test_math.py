r"""Mathematical problems: the layouts of the hub's data sets, scores, votes, records and what is told of them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("math_verify")

from rvpo.errors import ConfigError, DataError
from rvpo.evals.build import load_benchmark
from rvpo.evals.items import Generation, Item, Key, Reply, Scored
from rvpo.evals.math import INSTRUCTION, UNREADABLE, Math
from rvpo.evals.math_data import Questions, read_questions
from rvpo.evals.run import evaluate, table_of_results

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evals" / "math_vs_math_verify.py"
Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, rows: Rows, **options: Any) -> Questions:
    return read_questions(write(path / "rows.jsonl", rows), **options)


def problems(count: int, **more: Any) -> Rows:
    return [
        {"problem": f"What is {i} + {i}?", "answer": str(2 * i), "unique_id": f"p/{i}", **more} for i in range(count)
    ]


# --- layouts ----------------------------------------------------------------------------------------------------------

_OLYMPIAD = {
    "solution": ["Long."], "context": None, "image_1": None, "image_2": None, "modality": "Text-only",
    "difficulty": "Competition", "unit": None, "answer_type": "Numerical", "error": None, "language": "English",
    "is_multiple_answer": True,
}  # fmt: skip
_BOXED = {"solution": r"\boxed{7}"}
_TRUTH = {"style": "rule", "ground_truth": "34"}
LAYOUTS: dict[str, tuple[Rows, list[tuple[str, str, str]]]] = {
    "MATH-500": (
        [
            {
                "problem": "P0?",
                "answer": r"\frac{1}{2}",
                "subject": "Algebra",
                "level": 2,
                "unique_id": "a/0",
                **_BOXED,
            },
            {"problem": "P1?", "answer": "3", "subject": "Geometry", "level": 5, "unique_id": "a/1", **_BOXED},
        ],
        [("a/0", "P0?", r"\frac{1}{2}"), ("a/1", "P1?", "3")],
    ),
    "MATH": (
        [
            {
                "problem": "P0?",
                "level": "Level 5",
                "type": "Algebra",
                "solution": r"\boxed{1}, so $\boxed{\frac{1}{2}}$.",
            },
            {"problem": "P1?", "level": "Level 1", "type": "Geometry", "solution": r"So \boxed{(1, 2)}"},
        ],
        [("", "P0?", r"\frac{1}{2}"), ("", "P1?", "(1, 2)")],
    ),
    "GSM8K": ([{"question": "Q?", "answer": "6 * 205 = <<6*205=1230>>1230\n#### 1,230"}], [("", "Q?", "1,230")]),
    "AIME with an answer": (
        [{"id": 60, "problem": "P?", "solution": "…", "answer": "070", "url": "u", "year": "2024"}],
        [("60", "P?", "070")],
    ),
    "AIME, capitalised, numbers": (
        [{"ID": "2024-I-1", "Problem": "P?", "Solution": "…", "Answer": 204}],
        [("2024-I-1", "P?", "204")],
    ),
    "AIME, boxed solution alone": (
        [{"id": 1, "problem": "P?", "solution": r"\boxed{204}", "url": "u"}],
        [("1", "P?", "204")],
    ),
    "AMC, decimals": ([{"id": 0, "problem": "P?", "answer": 142.0, "url": "u"}], [("0", "P?", "142")]),
    "OlympiadBench": (
        [
            {"id": 1, "question": "Q?", "final_answer": ["$2$"], "subfield": "Algebra", **_OLYMPIAD},
            {"id": 2, "question": "R?", "final_answer": ["$-1,7$"], **_OLYMPIAD, "context": "Given x."},
        ],
        [("1", "Q?", "2"), ("2", "Given x.\n\nR?", "-1,7")],
    ),
    "verl": (
        [{"data_source": "aime", "prompt": [{"role": "user", "content": "P?"}], "reward_model": _TRUTH}],
        [("", "P?", "34")],
    ),
    "answers in a list of JSON": ([{"prompt": "P?", "reward_model": {"ground_truth": '["34"]'}}], [("", "P?", "34")]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("storage", ["jsonl", "parquet", "json"])
def test_layouts_of_the_hub(tmp_path: Path, layout: str, storage: str):
    rows, expected = LAYOUTS[layout]
    path = tmp_path / f"rows.{storage}"
    if storage == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif storage == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        write(path, rows)
    questions = read_questions(path).questions
    found = [(question.messages[-1]["content"], question.answer) for question in questions]
    assert found == [(prompt, answer) for _, prompt, answer in expected]
    for question, (id, _, _) in zip(questions, expected, strict=True):
        assert question.id == id if id else len(question.id) == 16


def test_levels_and_subjects_are_labels(tmp_path: Path):
    labels = [question.labels for question in read(tmp_path, LAYOUTS["MATH"][0]).questions]
    assert labels == [{"level": "5", "subject": "Algebra"}, {"level": "1", "subject": "Geometry"}]
    many = [{**row, "level": i} for i, row in enumerate(problems(30))]
    assert all(question.labels == {} for question in read(tmp_path, many).questions)


def test_which_columns_were_read_is_told_and_can_be_chosen(tmp_path: Path):
    rows = [{"problem": "P?", "final_answer": "1", "mine": "2"}]
    assert read(tmp_path, rows).notes == ("problem = problem, answer = final_answer",)
    chosen = read(tmp_path, rows, answer_column="mine")
    assert (chosen.questions[0].answer, chosen.notes[0]) == ("2", "problem = problem, answer = mine")
    with pytest.raises(DataError, match="no answers there"):
        read(tmp_path, rows, answer_column="yours")


def test_what_matters_of_the_reading_is_told(tmp_path: Path):
    rows = [
        {"problem": "A?", "answer": ["1", "2"], "error": "1e-3"},
        {"problem": "B?", "answer": ["He has five apples and six pears left"], "error": None},
        {"problem": " B? ", "answer": ["He has five apples and six pears left"], "error": None},
    ]
    found = read(tmp_path, rows)
    assert len(found.questions) == 2
    assert [note.partition(" ")[0] for note in found.notes[1:]] == ["1", "2", "1", "1"]
    assert "must state all of them" in found.notes[1]
    assert "look like sentences" in found.notes[2]
    assert "asked once" in found.notes[3]
    assert "tolerance" in found.notes[4]


def test_references_with_words_that_are_no_units_are_told(tmp_path: Path):
    answers = ["5 eggs", "1,200 cm", r"3\text{ eggs}", "2x", "12", "7 dogs"]  # centimetres are known
    rows = [{"problem": f"{i}?", "answer": answer} for i, answer in enumerate(answers)]
    found = Math(write(tmp_path / "rows.jsonl", rows)).summary([])["notes"]
    [note] = [note for note in found if "with a word" in note]
    assert note.startswith("2 references, such as '5 eggs'")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"problem": "P?", "answer": "1"}, {"problem": "P?", "answer": "2"}], r"row 1.*the problem of row 0 again"),
        ([{"problem": "P?", "answer": "1"}, {"problem": "Q?", "answer": None}], r"row 1.*saw no answer"),
        ([{"problem": "P?", "answer": True}], "saw bool True"),
        ([{"problem": "P?", "answer": {"a": 1}}], "saw dict"),
        ([{"problem": "P?", "solution": "It is four."}], "field 'solution'"),
        ([{"problem": "P?", "url": "u"}], "no answers"),
        ([{"problem": " ", "answer": "1"}], "visible character"),
        ([{"problem": None, "answer": "1"}, {"problem": "P?", "answer": "1"}], "no problem"),
        ([{"question": "Q?", "final_answer": ["1"], "image_1": {"path": "a.png"}}], "a picture next to the problem"),
        ([{"problem": "P?", "image": "a.png", "answer": "1"}], "a picture next to the problem"),
        ([{"problem": "<image>What is x?", "answer": "1"}], "a placeholder for a picture"),
        ([{"problem": "As in <image_1>, what is x?", "answer": "1"}], "a placeholder for a picture"),
        ([{"problem": "See ![](fig.png). What is x?", "answer": "1"}], "a placeholder for a picture"),
        ([{"prompt": [{"role": "user", "content": "<img src='a.png'> x?"}], "answer": "1"}], "a placeholder for a"),
        ([{"problem": "P?", "question": "Q?", "answer": "1"}], "may each be the prompt"),
        ([{"question": "Which one is it?", "options": ["one", "two"], "answer": "1"}], "choices next to the prompt"),
    ],
)  # fmt: skip
def test_rows_that_would_be_asked_or_scored_wrongly_are_refused(tmp_path: Path, rows: Rows, said: str):
    with pytest.raises(DataError, match=said):
        read(tmp_path, rows)


def test_pictures_in_columns_that_are_not_read_are_refused_and_empty_ones_are_not(tmp_path: Path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for picture in (None, {"bytes": b"png", "path": "a.png"}):
        columns = {"problem": pa.array(["P?"]), "answer": pa.array(["1"]), "diagram": pa.array([picture], kind)}
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
        if picture is None:
            assert len(read_questions(tmp_path / "x.parquet").questions) == 1
            continue
        with pytest.raises(DataError, match="pictures in the column 'diagram'"):
            read_questions(tmp_path / "x.parquet")
    clip = pa.array([{"bytes": b"OggS", "path": "a.ogg"}], kind)
    pq.write_table(pa.table({"problem": ["P?"], "answer": ["1"], "clip": clip}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match="sound in the column 'clip'"):
        read_questions(tmp_path / "y.parquet")


def test_ids_that_repeat_are_not_used(tmp_path: Path):
    rows = [{**row, "unique_id": "same"} for row in problems(3)]
    ids = [question.id for question in read(tmp_path, rows).questions]
    assert len(set(ids)) == 3
    assert ids == [question.id for question in read(tmp_path, rows + problems(0)).questions]


# --- how problems are asked -------------------------------------------------------------------------------------------


def asked(path: Path, prompt: Any, **options: Any) -> list[dict[str, str]]:
    [item] = Math(write(path / "asked.jsonl", [{"prompt": prompt, "answer": "1"}]), samples=1, **options).items()
    return [dict(message) for message in item.messages]


def test_the_instruction_is_added_where_the_problem_has_none(tmp_path: Path):
    assert asked(tmp_path, "P?") == [{"role": "user", "content": f"P?\n\n{INSTRUCTION}"}]
    assert asked(tmp_path, "P? Box it: \\boxed{}")[0]["content"] == "P? Box it: \\boxed{}"
    assert asked(tmp_path, "P?", instruction="")[0]["content"] == "P?"
    chat = [{"role": "system", "content": "Think."}, {"role": "user", "content": "P?"}]
    assert asked(tmp_path, chat) == [chat[0], {"role": "user", "content": f"P?\n\n{INSTRUCTION}"}]
    assert asked(tmp_path, chat, system_prompt="Be brief.")[0] == {"role": "system", "content": "Be brief."}
    few = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "It is 2."},
        {"role": "user", "content": "P?"},
    ]
    assert [message["content"] for message in asked(tmp_path, few)] == ["1+1?", "It is 2.", f"P?\n\n{INSTRUCTION}"]


def test_options_that_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "x.jsonl", problems(2))
    with pytest.raises(ConfigError, match="k is 8, but each item has 4 samples"):
        load_benchmark("math", {"path": path, "k": [8]}, tmp_path)
    with pytest.raises(ConfigError, match="its options are path, samples, k"):
        load_benchmark("math", {"path": path, "epochs": 2}, tmp_path)
    with pytest.raises(ConfigError, match="limit is 0"):
        Math(path, limit=0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"math-verify, which .* is not installed.*\[eval,math\]"):
        Math(path)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_math_verify():
    """A few of the pairs of the script, which runs a thousand."""
    spec = importlib.util.spec_from_file_location("math_vs_math_verify", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    spec.loader.exec_module(script)
    made = script.generated(22, 3)
    scores = script.ours([(wanted, reply) for _, wanted, reply in made])
    assert scores == [script.own(wanted, reply) for _, wanted, reply in made]
    assert 0.25 < sum(scores) / len(scores) < 0.75


def score(benchmark: Math, texts: Sequence[str]) -> list[Scored]:
    items = [item for item in benchmark.items() if item.epoch == 0]
    return asyncio.run(benchmark.score([(item, Reply(text)) for item, text in zip(items, texts, strict=True)]))


def test_a_reference_that_cannot_be_read_is_missing_and_most_of_them_are_refused(tmp_path: Path):
    rows = [*problems(3), {"problem": "Odd?", "answer": "\\frac{1}{"}]
    benchmark = Math(write(tmp_path / "x.jsonl", rows), samples=1)
    asyncio.run(benchmark.check())
    *_, odd = score(benchmark, ["\\boxed{0}"] * 4)
    assert odd.scores == {"avg@1": None, "answered": 1.0}
    assert odd.reasons == {"avg@1": UNREADABLE}
    wrong = [{"problem": f"P{i}?", "answer": "\\frac{"} for i in range(2)]
    with pytest.raises(DataError, match="2 of 2 references that Math-Verify cannot read"):
        asyncio.run(Math(write(tmp_path / "y.jsonl", wrong)).check())


class Speaker:
    """Says what a function of problem number and epoch says; None is a reply that is missing."""

    def __init__(self, says: Callable[[int, int], str | None], name: str = "speaker") -> None:
        self._says, self._name = says, name
        self.asked: list[Key] = []

    def identity(self) -> Mapping[str, Any]:
        return {"name": self._name}

    async def replies(
        self, items: Sequence[Item], wanted: Set[Key], generation: Generation
    ) -> AsyncIterator[list[tuple[Item, Reply]]]:
        for item in items:
            if item.key in wanted:
                self.asked.append(item.key)
                text = self._says(int(item.id[2:]), item.epoch)
                yield [(item, Reply.missing("timeout") if text is None else Reply(text))]


def says(i: int, epoch: int) -> str | None:
    """Problem 0: two right, two wrong that are equal (a tie). 1: all right. 2: one missing. 3: no answer at all."""
    answers: dict[int, list[str | None]] = {
        0: ["\\boxed{0}", "\\boxed{0.0}", "\\boxed{1}", "\\boxed{\\frac{2}{2}}"],
        1: ["\\boxed{2}", "#### 2", "\\boxed{x=2}", "\\boxed{\\frac{4}{2}}"],
        2: ["\\boxed{4}", None, "\\boxed{5}", "\\boxed{6}"],
        3: ["no", "idea", "at", "all"],
    }
    return answers[i][epoch]


def test_a_run_from_replies_to_records(tmp_path: Path):
    path = write(tmp_path / "x.jsonl", problems(4))
    results = evaluate(Math(path), Speaker(says), tmp_path / "run", quiet=True)
    found = {name: (value["mean"], value["items"], value["missing"]) for name, value in results["metrics"].items()}
    assert results["primary"] == "avg@4"
    assert found["avg@4"] == (pytest.approx((2 / 4 + 1 + 1 / 3 + 0) / 4), 4, 1)
    assert found["pass@1"] == (pytest.approx((2 / 4 + 1 + 1 / 3 + 0) / 4), 4, 0)
    assert found["pass@2"] == (pytest.approx((1 - 1 / 6 + 1 + 1 - 1 / 3 + 0) / 4), 4, 0)
    assert found["pass@4"] == (pytest.approx(2 / 3), 3, 1)
    assert found["majority@4"] == (pytest.approx((0.5 + 1 + 0) / 3), 3, 1)
    assert found["answered"] == (pytest.approx(3 / 4), 4, 1)
    told = table_of_results(results)
    for word in (
        "1 of 4 items have fewer than 4 scored",
        "1 of pass@4",
        "1 of 3 votes are ties",
        "in 1 of 3 votes no sample",
    ):
        assert word in told
    table = pq.read_table(tmp_path / "run" / "items.parquet").to_pylist()
    first, *_ = [row for row in table if row["id"] == "p/2"]
    assert first["score/pass@4"] is None
    assert json.loads(first["missing"]) == {
        "pass@4": "3 of 4 samples are scored",
        "majority@4": "3 of 4 samples are scored",
    }
    assert sum(row["score/pass@1"] is not None for row in table) == 4
    assert json.loads(first["details"]) == {"answer": "4", "reference": "4"}


def test_other_k_are_made_from_the_same_replies_and_missing_ones_are_asked_again(tmp_path: Path):
    path, folder = write(tmp_path / "x.jsonl", problems(4)), tmp_path / "run"
    evaluate(Math(path), Speaker(says), folder, quiet=True)
    whole = Speaker(lambda i, epoch: says(i, epoch) or "\\boxed{7}")
    results = evaluate(Math(path, k=[3]), whole, folder, quiet=True)
    assert whole.asked == [("p/2", 1)]
    assert [name for name in results["metrics"] if name.startswith("pass@")] == ["pass@3"]
    assert results["metrics"]["pass@3"]["items"] == 4
    again = Speaker(says)
    assert evaluate(Math(path, k=[3]), again, folder, quiet=True)["metrics"] == results["metrics"]
    more = evaluate(Math(path), again, folder, quiet=True)
    assert not again.asked
    assert more["metrics"]["pass@4"]["missing"] == 0
    with pytest.raises(ConfigError, match=r"settings\.samples"):
        evaluate(Math(path, samples=8), again, folder, quiet=True)


@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_samples_that_are_one_and_the_same_are_told_first(tmp_path: Path, temperature: float):
    path = write(tmp_path / "x.jsonl", problems(3))
    generation = Generation(64, temperature)
    results = evaluate(
        Math(path), Speaker(lambda i, _: f"\\boxed{{{i}}}"), tmp_path / "a", generation=generation, quiet=True
    )
    [warning] = results["warnings"]
    assert "the 4 samples of an item are the same reply in 3 of 3 items" in warning
    assert table_of_results(results).split("\n\n")[1].startswith(warning)
    one = evaluate(Math(path, samples=1), Speaker(lambda i, _: "1"), tmp_path / "b", generation=generation, quiet=True)
    assert one["warnings"] == []
    others = Speaker(lambda i, epoch: f"\\boxed{{{i + epoch}}}")
    varied = evaluate(Math(path), others, tmp_path / "c", generation=generation, quiet=True)
    assert bool(varied["warnings"]) == (temperature == 0)


def test_settings_change_with_whatever_changes_what_is_asked(tmp_path: Path):
    path = write(tmp_path / "x.jsonl", problems(3))
    base = Math(path).settings()
    assert json.loads(json.dumps(base)) == base
    assert base == Math(path, k=[1]).settings()
    changed = (
        Math(path, samples=5),
        Math(path, limit=2),
        Math(path, instruction="Answer."),
        Math(path, system_prompt="Hi"),
    )
    assert all(other.settings() != base for other in changed)
