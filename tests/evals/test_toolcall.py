"""The tool-calling benchmark: which metrics an item has, and what replies are worth, worked by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpo.errors import DataError
from rvpo.evals.items import Benchmark, Reply, Scored

pytest.importorskip("datasets")

from rvpo.evals.toolcall import UNSCORABLE, ToolCall

SYSTEM = "You may call these tools: 1. Name: tide_table Parameters: {}"
HARBOUR = '{"name": "tide_table", "parameters": {"harbour": "Husum", "day": 3}}'
MOON = '{"name": "moon_phase", "parameters": {}}'
CALL = f"<think> Tides. </think>\n<tool_call>\n{HARBOUR}\n{MOON}\n</tool_call>"
RESPONSE = "<think> Small talk. </think>\n<response> Good morning! </response>"
BOTH = f"<think> Both. </think>\n<tool_call>\n{MOON}\n</tool_call>\n<response> I look. </response>"
NEITHER = "<think> Nothing to do. </think>"
BROKEN = "<think> Tides. </think>\n<tool_call>\n{'name': tide_table}\n</tool_call>"
ANSWERS = (CALL, RESPONSE, BOTH, NEITHER, BROKEN)


def write(path: Path, answers: tuple[str, ...] = ANSWERS) -> Path:
    """Write rows in the layout of RLLA; the input has the length of its row's number, and some more."""
    rows = [{"instruction": SYSTEM, "input": "x" * (10 + i), "output": answer} for i, answer in enumerate(answers)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> ToolCall:
    return ToolCall(write(tmp_path_factory.mktemp("toolcall") / "rlla.json"))


def score(benchmark: ToolCall, row: int, *texts: str) -> list[Scored]:
    item = benchmark.items()[row]
    return asyncio.run(benchmark.score([(item, Reply(text)) for text in texts]))


def test_items_are_the_rows_with_what_their_references_hold(benchmark: ToolCall):
    protocol: Benchmark = benchmark
    items = protocol.items()
    assert [item.labels["reference"] for item in items] == ["call", "response", "both", "neither", "call"]
    assert items[1].messages == ({"role": "system", "content": SYSTEM}, {"role": "user", "content": "x" * 11})
    with_call, without = ["correctness", "exact", "format"], ["no_call", "format"]
    assert [benchmark.metrics(item) for item in items] == [with_call, without, with_call, without, with_call]
    assert benchmark.primary in with_call


def test_calls_by_hand(benchmark: ToolCall):
    """The maximum is 1 + (1 + 2 keys) + (1 + 0 keys) = 5; a score s gives 6 s / 5 - 3."""
    swapped = f"<think> x </think>\n<tool_call>\n{MOON}\n{HARBOUR}\n</tool_call>"
    wrong_day = CALL.replace("3", "4")  # s = 5 - 1
    only_moon = f"<think> x </think>\n<tool_call>\n{MOON}\n</tool_call>"  # names 1/2, no first call, 1: s = 1.5
    replies = [CALL, swapped, wrong_day, only_moon, "no call", RESPONSE, ""]
    scored = score(benchmark, 0, *replies)
    expected = [3.0, 3.0, 6 * 4 / 5 - 3, 6 * 1.5 / 5 - 3, -3.0, -3.0, -3.0]
    assert [s.scores["correctness"] for s in scored] == pytest.approx(expected, abs=1e-12)
    assert [s.scores["exact"] for s in scored] == [1, 1, 0, 0, 0, 0, 0]
    assert [s.scores["format"] for s in scored] == [1, 1, 1, 1, 0, 0, 0]
    assert all(list(s.scores) and set(s.scores) == {"correctness", "exact", "format"} for s in scored)


def test_an_item_without_calls_asks_for_none(benchmark: ToolCall):
    """It has no correctness, which by ToolRL's definition is 0 there, whatever the reply."""
    scored = score(benchmark, 1, RESPONSE, NEITHER, CALL, "<tool_call>")
    assert [s.scores for s in scored] == [
        {"format": 1.0, "no_call": 1.0},
        {"format": 0.0, "no_call": 1.0},
        {"format": 0.0, "no_call": 0.0},
        {"format": 0.0, "no_call": 0.0},
    ]
    parsed_by_server = Reply("", calls=({"name": "moon_phase", "arguments": "{}"},))
    [one] = asyncio.run(benchmark.score([(benchmark.items()[1], parsed_by_server)]))
    assert one.scores["no_call"] == 0.0


def test_a_reference_that_cannot_be_read_is_missing_with_its_reason(benchmark: ToolCall):
    for scored in score(benchmark, 4, BROKEN, CALL, ""):
        assert scored.scores["correctness"] is None
        assert scored.scores["exact"] is None
        assert scored.reasons == {"correctness": UNSCORABLE, "exact": UNSCORABLE}
    assert [s.scores["format"] for s in score(benchmark, 4, CALL, "")] == [1.0, 0.0]


@given(
    st.lists(
        st.sampled_from((*ANSWERS, "<tool_call>", "</tool_call>", "\n", "{", "[", '"', "\x00", "\ud800")), max_size=8
    )
)
@settings(max_examples=150, deadline=None)
def test_no_reply_raises_and_scores_lie_in_their_ranges(benchmark: ToolCall, parts: list[str]):
    text = "".join(parts)
    for item in benchmark.items():
        [scored] = asyncio.run(benchmark.score([(item, Reply(text))]))
        assert set(scored.scores) == set(benchmark.metrics(item))
        for metric, value in scored.scores.items():
            low = -3.0 if metric == "correctness" else 0.0
            high = 3.0 if metric == "correctness" else 1.0
            assert (value is None and metric in scored.reasons) or low <= value <= high


def test_huge_replies_are_scored_at_once(benchmark: ToolCall):
    deep = "<think> </think>\n<tool_call>\n" + "[" * 300_000 + "\n</tool_call>"
    for text in (deep, "<tool_call>" * 50_000, '"' * 500_000, CALL + " " * 500_000):
        [scored] = score(benchmark, 0, text)
        assert scored.scores["correctness"] in (-3.0, 3.0)


# --- rows held out -------------------------------------------------------------------------------------


def ids(path: Path, **options: object) -> list[str]:
    return [item.id for item in ToolCall(path, **options).items()]


def test_an_id_depends_on_its_row_alone(tmp_path: Path):
    path = write(tmp_path / "a.json")
    all_ids = ids(path)
    assert len(set(all_ids)) == 5
    assert ids(path, offset=2) == all_ids[2:]
    assert ids(path, limit=2) == all_ids[:2]
    assert sorted(ids(path, shuffle_seed=1)) == sorted(all_ids)
    changed = ids(write(tmp_path / "b.json", (CALL, RESPONSE, BOTH, NEITHER, CALL)))
    assert changed[:4] == all_ids[:4]
    assert changed[4] != all_ids[4]


def test_training_and_held_out_rows_are_disjoint_for_one_seed(tmp_path: Path):
    path = write(tmp_path / "a.json", ANSWERS * 8)
    options = {"shuffle_seed": 3, "max_prompt_chars": len(SYSTEM) + 10 + 29}  # inputs of up to 39 characters: 30 rows
    train, held_out = ids(path, limit=20, **options), ids(path, offset=20, **options)
    assert (len(train), len(held_out)) == (20, 10)
    assert not set(train) & set(held_out)
    assert train != ids(path, limit=20, max_prompt_chars=options["max_prompt_chars"])


def test_equal_rows_keep_ids_of_their_own(tmp_path: Path):
    rows = [{"prompt": "Hello", "answer": RESPONSE}] * 3
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    benchmark = ToolCall(path)
    first, second, third = benchmark.items()
    assert (second.id, third.id) == (f"{first.id}-2", f"{first.id}-3")
    assert first.messages == ({"role": "user", "content": "Hello"},)
    assert score(benchmark, 2, RESPONSE)[0].scores == {"format": 1.0, "no_call": 1.0}


def test_settings_are_a_digest_of_the_rows(tmp_path: Path):
    base = ToolCall(write(tmp_path / "a.json")).settings()
    assert base == ToolCall(write(tmp_path / "b.json")).settings()
    assert base["rows"] == 5
    assert base != ToolCall(tmp_path / "a.json", limit=4).settings()
    other = write(tmp_path / "c.json", (*ANSWERS[:4], CALL))
    assert ToolCall(other).settings()["data"] != base["data"]


def test_summary_counts_references_also_of_items_without_a_reply(benchmark: ToolCall):
    scored = [(item, Scored.missing(benchmark.metrics(item), "reply: timeout")) for item in benchmark.items()]
    assert benchmark.summary(scored) == {"references": {"both": 1, "call": 2, "neither": 1, "response": 1}}


def test_malformed_data_is_an_error(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "Hello"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="answer"):
        ToolCall(path)
