"""GPQA: orders, prompts and readers; the letter read is compared with inspect-ai's own solver and scorer."""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import json
import sys
from collections import Counter
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpo.errors import ConfigError, DataError
from rvpo.evals.items import Benchmark, Item, Reply, Scored

pytest.importorskip("inspect_ai")

from inspect_ai.model import ChatMessageUser, ModelName, ModelOutput
from inspect_ai.scorer import Target, choice
from inspect_ai.solver import TaskState, multiple_choice

from rvpo.evals.gpqa import COLUMNS, GPQA, LETTERS, OPTIONS, option_order, shorten_blanks

FOLDER = Path(__file__).parents[2] / "benchmarks" / "evals"
SMALL = FOLDER / "gpqa_small.csv"


def hard_cases() -> dict[str, str]:
    """Return the replies of benchmarks/evals/gpqa_extraction.py."""
    spec = importlib.util.spec_from_file_location("gpqa_extraction", FOLDER / "gpqa_extraction.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


def row(**changes: str) -> dict[str, str]:
    texts = {column: f"{column} text" for column in COLUMNS}
    return texts | {"Record ID": "r1", "High-level domain": "Physics"} | changes


def write(path: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def score(benchmark: GPQA, item: Item, *texts: str) -> list[Scored]:
    return asyncio.run(benchmark.score([(item, Reply(text)) for text in texts]))


def inspect_reads(text: str, options: list[str], correct: str) -> tuple[str, bool, str | None]:
    """Return prompt, whether the reply is right, and its letter, by inspect-ai's public solver and scorer alone."""

    async def run() -> tuple[str, bool, str | None]:
        state = TaskState(
            ModelName("none/none"), 1, 1, "Question?", [ChatMessageUser(content="Question?")], choices=options
        )

        async def generate(state: TaskState, *_: object, **__: object) -> TaskState:
            state.output = ModelOutput.from_content("none", text)
            return state

        state = await multiple_choice(cot=True)(state, generate)  # type: ignore[arg-type]
        result = await choice()(state, Target(correct))
        assert result is not None
        return state.user_prompt.text, result.value == "C", result.answer or None

    return asyncio.run(run())


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> GPQA:
    return GPQA(write(tmp_path_factory.mktemp("gpqa") / "one.csv", [row(Question="Question?")]))


# --- orders and prompts --------------------------------------------------------------------------------


def test_in_four_epochs_the_right_answer_stands_at_each_letter_once():
    for seed in range(20):
        orders = [option_order(seed, "id", epoch) for epoch in range(4)]
        assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
        for option in range(4):
            assert sorted(order.index(option) for order in orders) == [0, 1, 2, 3]


def test_a_fifth_epoch_draws_anew():
    assert any(option_order(0, f"q{i}", 0) != option_order(0, f"q{i}", 4) for i in range(10))


def test_orders_are_uniform():
    """4,800 draws of 24 orders: 200 each, with a standard deviation of sqrt(4800 * 1/24 * 23/24) = 13.8."""
    for epoch in (0, 3):
        counts = Counter(option_order(7, f"question {i}", epoch) for i in range(4800))
        assert set(counts) == set(permutations(range(4)))
        assert all(abs(count - 200) < 5 * 13.8 for count in counts.values())


def test_orders_are_those_of_the_seed_for_ever():
    """Pinned: another order would silently make stored runs incomparable."""
    assert [option_order(0, "rvpo-01", epoch) for epoch in range(2)] == [(3, 0, 2, 1), (0, 2, 1, 3)]
    assert any(option_order(0, f"q{i}", 0) != option_order(1, f"q{i}", 0) for i in range(10))


def test_prompts_are_those_of_inspect_with_the_options_in_order(one: GPQA):
    items = one.items()
    assert [(item.id, item.epoch) for item in items] == [("r1", epoch) for epoch in range(4)]
    for item in items:
        order = option_order(0, "r1", item.epoch)
        options = [f"{OPTIONS[option]} text" for option in order]
        [message] = item.messages
        assert message == {"role": "user", "content": inspect_reads("", options, "A")[0]}
        lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
        assert message["content"].endswith("\n".join(lines))
        assert item.labels == {"domain": "Physics", "subdomain": "Subdomain text"}


def test_braces_and_several_lines_of_a_question_reach_the_prompt(tmp_path: Path):
    question = 'What is {x}\nin \\{1, 2\\}, "or" {question}?'
    [item] = GPQA(write(tmp_path / "x.csv", [row(Question=question)]), epochs=1).items()
    assert question in item.messages[0]["content"]


# --- reading a reply -----------------------------------------------------------------------------------


def test_hard_cases_are_read_as_inspect_reads_them(one: GPQA):
    [item, *_] = one.items()
    order = option_order(0, "r1", 0)
    correct = LETTERS[order.index(0)]
    cases = hard_cases()
    options = [f"{OPTIONS[option]} text" for option in order]
    for (name, text), scored in zip(cases.items(), score(one, item, *cases.values()), strict=True):
        _, right, letter = inspect_reads(text, options, correct)
        assert (scored.scores["accuracy"], scored.details["letter"]) == (float(right), letter), name
        assert scored.scores["answered"] == float(letter is not None), name
        assert scored.scores["domain:Physics"] == scored.scores["accuracy"]


def test_only_the_right_letter_scores(one: GPQA):
    for item in one.items():
        correct = LETTERS[option_order(0, "r1", item.epoch).index(0)]
        scored = score(one, item, *(f"ANSWER: {letter}" for letter in LETTERS))
        assert [s.scores["accuracy"] for s in scored] == [float(letter == correct) for letter in LETTERS]
        assert [s.details["letter"] for s in scored] == list(LETTERS)
        assert {s.details["correct"] for s in scored} == {correct}


def test_a_reply_without_a_letter_is_wrong_and_not_missing(one: GPQA):
    [scored] = score(one, one.items()[0], "I do not know.")
    assert scored.scores == {"accuracy": 0.0, "answered": 0.0, "domain:Physics": 0.0}
    assert scored.reasons == {}


WORDS = (
    "ANSWER",
    "answer",
    ":",
    "A",
    "B",
    "C",
    "$",
    "**",
    "(",
    ")",
    ",",
    ".",
    "_",
    "\n",
    "\r",
    " ",
    "\t",
    "\u00a0",
    "7",
)
BLANK_RUNS = (" " * 16, "\t" * 17, " \t" * 9, "\t " * 8, "\u2003" * 16, "\x1c" * 20, " " * 9 + "\x0b" * 9)


@given(st.lists(st.sampled_from((*WORDS, *BLANK_RUNS, "ANSWER:", "\nANSWER: ", "A ,")), max_size=14).map("".join))
@settings(max_examples=400, deadline=None)
def test_shortened_blanks_change_no_reading(text: str):
    """The direct reading takes the cube of a run, which is at most some 60 blanks here."""
    assert inspect_reads(shorten_blanks(text), list("abcd"), "A") == inspect_reads(text, list("abcd"), "A")


def test_blanks_are_shortened_within_lines_and_from_sixteen_on():
    assert shorten_blanks("a" + " " * 15 + "b") == "a" + " " * 15 + "b"
    assert shorten_blanks("a" + " " * 16 + "b") == "a b"
    assert shorten_blanks("a" + "\t \t" * 9 + "\n" + " " * 9) == "a\t \n" + " " * 9


@pytest.mark.parametrize(
    "text",
    [
        "ANSWER:" + " " * 200_000 + "_",
        "ANSWER:" + " \t" * 100_000 + "_",
        "$a" + " " * 200_000 + "_",
        ("ANSWER:" + " " * 15 + "_") * 10_000,
        "\ud800ANSWER: A",
        "\x00" * 999,
    ],
    ids=["spaces", "blanks", "dollar", "short runs", "surrogate", "NUL"],
)
def test_hostile_replies_are_read_at_once(one: GPQA, text: str):
    """The first would take inspect-ai's patterns a year: a hang fails the suite."""
    [scored] = score(one, one.items()[0], text)
    assert scored.scores["accuracy"] in (0.0, 1.0)


# --- files ---------------------------------------------------------------------------------------------


def test_the_columns_of_the_real_file_in_any_order_with_a_byte_order_mark(tmp_path: Path):
    path = write(tmp_path / "x.csv", [row(), row(**{"Record ID": "r2"})], ("Other", *reversed(COLUMNS)))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [item.id for item in GPQA(path, epochs=1).items()] == ["r1", "r2"]
    assert [item.id for item in GPQA(path, epochs=1, limit=1).items()] == ["r1"]


def test_a_row_that_is_malformed_is_named_by_file_row_line_and_field(tmp_path: Path):
    rows = [row(Question="two\nlines"), row(**{"Record ID": "r2", "Incorrect Answer 2": " "})]
    with pytest.raises(
        DataError, match=r"x\.csv, row 1 \(line 4\), field 'Incorrect Answer 2': saw ' '; expected text"
    ):
        GPQA(write(tmp_path / "x.csv", rows))
    with pytest.raises(DataError, match=r"row 1 \(line 3\), field 'Record ID': saw 'r1' a second time"):
        GPQA(write(tmp_path / "y.csv", [row(), row()]))


def test_files_that_are_no_table_of_questions(tmp_path: Path):
    with pytest.raises(DataError, match=r"absent\.csv: saw no such file; .* or use Idavidrein/gpqa from the hub"):
        GPQA(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"no column 'Subdomain' among \['Record ID'.*expected the columns Record ID"):
        GPQA(write(tmp_path / "a.csv", [row()], COLUMNS[:-1]))
    with pytest.raises(DataError, match="saw 0 rows"):
        GPQA(write(tmp_path / "b.csv", []))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="saw an empty file; expected the columns Record ID"):
        GPQA(tmp_path / "empty.csv")
    path = write(tmp_path / "c.csv", [row()])
    path.write_text(path.read_text(encoding="utf-8") + "only,three,cells\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 1 \(line 3\): saw 3 cells; expected 8, as in the header"):
        GPQA(path)
    path.write_text(path.read_text(encoding="utf-8") + '"never closed', encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace("only,three,cells\n", ""), encoding="utf-8")
    with pytest.raises(DataError, match="unexpected end of data"):
        GPQA(path)
    path.write_bytes(",".join(COLUMNS).encode() + b"\n\xff\xfe")
    with pytest.raises(DataError, match="can't decode byte 0xff"):
        GPQA(path)


def test_the_hub_is_asked_for_diamond_and_its_gate_is_named(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str, str]] = []

    def load_dataset(repo_id: str, name: str, split: str) -> object:
        asked.append((repo_id, name, split))
        raise PermissionError("401")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"401.*gated: accept its terms on its page and run `hf auth login`"):
        GPQA()
    assert asked == [("Idavidrein/gpqa", "gpqa_diamond", "train")]


def test_options_that_cannot_work():
    with pytest.raises(ConfigError, match="epochs=0; expected at least 1"):
        GPQA(SMALL, epochs=0)
    with pytest.raises(ConfigError, match="limit=0; expected at least 1"):
        GPQA(SMALL, limit=0)


# --- the whole benchmark -------------------------------------------------------------------------------


def test_the_small_file_is_whole():
    benchmark: Benchmark = GPQA(SMALL)
    items = benchmark.items()
    assert len(items) == 24 * 4
    assert len({item.key for item in items}) == len(items)
    assert {item.labels["domain"] for item in items} == {"Physics", "Chemistry", "Biology"}


def test_settings_change_with_whatever_changes_the_questions(tmp_path: Path):
    path = write(tmp_path / "x.csv", [row(), row(**{"Record ID": "r2"})])
    base = GPQA(path).settings()
    assert json.loads(json.dumps(base)) == base
    assert base == GPQA(write(tmp_path / "y.csv", [row(), row(**{"Record ID": "r2"})])).settings()
    changed = write(tmp_path / "z.csv", [row(), row(**{"Record ID": "r2", "Incorrect Answer 3": "another"})])
    for other in (GPQA(changed), GPQA(path, limit=1), GPQA(path, seed=1), GPQA(path, epochs=2)):
        assert other.settings() != base
    assert GPQA(changed, limit=1).settings()["data"] == GPQA(path, limit=1).settings()["data"]


def test_summary_shows_a_favourite_letter_and_leaves_out_what_has_no_reply(tmp_path: Path):
    benchmark = GPQA(write(tmp_path / "x.csv", [row(), row(**{"Record ID": "r2", "High-level domain": "Biology"})]))
    items = benchmark.items()
    pairs = [(item, Reply("ANSWER: B" if item.id == "r1" else "…")) for item in items]
    scored = list(zip(items, asyncio.run(benchmark.score(pairs)), strict=True))
    summary = benchmark.summary(scored)
    right = {item.epoch: s.scores["accuracy"] for item, s in scored if item.id == "r1"}
    assert summary["accuracy_by_epoch"] == {str(epoch): right[epoch] / 2 for epoch in range(4)}
    assert sum(right.values()) == 1.0  # B is right in one of four epochs
    assert summary["chosen"] == {"B": 0.5, "None": 0.5}
    assert summary["notes"] == ["letters chosen: B 50%, None 50%"]
    assert summary["correct"] == dict.fromkeys(LETTERS, 0.25)
    gone = [(items[0], Scored.missing(benchmark.metrics(items[0]), "reply: timeout")), *scored[1:]]
    assert benchmark.summary(gone)["accuracy_by_epoch"]["0"] == 0.0  # r2 alone
    nothing = [(item, Scored.missing(benchmark.metrics(item), "reply: timeout")) for item in items]
    assert benchmark.summary(nothing) == {"accuracy_by_epoch": {}, "chosen": {}, "correct": {}, "notes": []}
    assert benchmark.metrics(items[1]) == ["accuracy", "answered", "domain:Biology"]
