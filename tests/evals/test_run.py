"""The runner of evaluations: what is asked, kept, resumed, refused and written."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rvpo.errors import ConfigError, DataError, JudgeError, ModelError
from rvpo.evals.items import Generation, Item, Key, Reply, Scored
from rvpo.evals.run import evaluate, table_of_results
from rvpo.evals.store import Store


class Lengths:
    """Scores a reply by its number of words; ``without`` names replies that cannot be scored, for a while."""

    name, primary, generation = "lengths", "words", Generation(max_tokens=8)

    def __init__(self, ids: Sequence[str] = ("a", "b", "c"), epochs: int = 1, without: Set[str] = frozenset()) -> None:
        self.ids, self.epochs, self.without = ids, epochs, without
        self.asked: Counter[Key] = Counter()

    def settings(self) -> dict[str, Any]:
        return {"ids": list(self.ids), "epochs": self.epochs}

    def items(self) -> list[Item]:
        return [
            Item(id_, ({"role": "user", "content": f"say {id_}"},), epoch, labels={"first": id_[0]})
            for epoch in range(self.epochs)
            for id_ in self.ids
        ]

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        self.asked.update(item.key for item, _ in replied)
        found = []
        for item, reply in replied:
            value = None if item.id in self.without else float(len((reply.text or "").split()))
            reasons = {"words": "judge"} if value is None else {}
            found.append(Scored({"words": value, "short": 1.0}, reasons, details={"text": reply.text}))
        return found

    def metrics(self, item: Item) -> Sequence[str]:
        return ("words", "short")

    def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
        return {"seen": len(scored)}


MANY = [f"{letter}{number}" for letter in "abcdefgh" for number in range(8)]


class Speaker:
    """Replies with as many words as the item's number in the alphabet, in batches; some items have no reply."""

    def __init__(
        self,
        name: str = "speaker",
        lost: Set[str] = frozenset(),
        dies_after: float = math.inf,
        reason: str = "timeout",
    ) -> None:
        self.name, self.lost, self.dies_after, self.reason = name, lost, dies_after, reason
        self.asked: Counter[Key] = Counter()

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    async def replies(
        self, items: Sequence[Item], wanted: Set[Key], generation: Generation
    ) -> AsyncIterator[list[tuple[Item, Reply]]]:
        for item in items:
            if item.key not in wanted:
                continue
            if self.asked.total() >= self.dies_after:
                raise KeyboardInterrupt
            self.asked[item.key] += 1
            words = " ".join(["word"] * (ord(item.id[0]) - ord("a") + 1))
            gone = Reply.missing(self.reason, "so it was")
            yield [(item, gone if item.id in self.lost else Reply(words, prompt_tokens=3, completion_tokens=1))]


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "items.parquet").to_pylist()


def test_a_run_leaves_records_and_results(tmp_path: Path):
    results = evaluate(Lengths(epochs=2), Speaker(), tmp_path, quiet=True)
    found = rows(tmp_path)
    assert [(row["id"], row["epoch"], row["score/words"]) for row in found] == [
        ("a", 0, 1.0), ("b", 0, 2.0), ("c", 0, 3.0), ("a", 1, 1.0), ("b", 1, 2.0), ("c", 1, 3.0),
    ]  # fmt: skip
    assert found[1]["completion"] == "word word"
    assert found[1]["label/first"] == "b"
    assert json.loads(found[1]["prompt"]) == [{"role": "user", "content": "say b"}]
    assert json.loads(found[1]["details"]) == {"text": "word word"}
    assert results["metrics"]["words"]["mean"] == pytest.approx(2.0)
    assert results["metrics"]["words"]["items"] == 3  # two epochs of an item are one item
    assert (results["items"], results["replies"], results["prompt_tokens"]) == (3, 6, 18)
    assert results["summary"] == {"seen": 6}
    on_disk = json.loads((tmp_path / "results.json").read_text())
    assert on_disk["metrics"] == results["metrics"]
    assert on_disk["primary"] == "words"
    assert "words" in table_of_results(results)


def test_called_again_nothing_is_asked_twice(tmp_path: Path):
    first, before = Speaker(), Lengths()
    results = evaluate(before, first, tmp_path, quiet=True)
    again, after = Speaker(), Lengths()
    assert evaluate(after, again, tmp_path, quiet=True)["metrics"] == results["metrics"]
    assert not again.asked
    assert not after.asked


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path):
    stopped = Speaker(dies_after=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Lengths(), stopped, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "results.json").exists()
    rest = Speaker()
    results = evaluate(Lengths(), rest, tmp_path / "run", quiet=True)
    assert stopped.asked + rest.asked == Counter({("a", 0): 1, ("b", 0): 1, ("c", 0): 1})
    whole = evaluate(Lengths(), Speaker(), tmp_path / "whole", quiet=True)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert results["metrics"] == whole["metrics"]


def test_a_reply_that_is_missing_is_asked_for_again(tmp_path: Path):
    results = evaluate(Lengths(), Speaker(lost={"b"}), tmp_path, quiet=True)
    assert results["metrics"]["words"] == {**results["metrics"]["words"], "mean": 2.0, "items": 2, "missing": 1}
    assert results["replies_missing"] == {"timeout": 1}
    lost = rows(tmp_path)[1]
    assert lost["score/words"] is None
    assert lost["completion"] is None
    assert lost["reason"] == "timeout"
    assert json.loads(lost["missing"]) == {"words": "reply: timeout", "short": "reply: timeout"}
    assert "1 replies are missing" in table_of_results(results)
    again = Speaker()
    assert evaluate(Lengths(), again, tmp_path, quiet=True)["metrics"]["words"]["missing"] == 0
    assert again.asked == Counter({("b", 0): 1})


def test_a_score_that_is_missing_is_asked_for_again_without_a_new_reply(tmp_path: Path):
    results = evaluate(Lengths(without={"c"}), Speaker(), tmp_path, quiet=True)
    assert results["metrics"]["words"]["missing"] == 1
    assert results["metrics"]["short"]["missing"] == 0  # the item's other metrics stand
    again, judged = Speaker(), Lengths()
    assert evaluate(judged, again, tmp_path, quiet=True)["metrics"]["words"]["mean"] == 2.0
    assert not again.asked
    assert judged.asked == Counter({("c", 0): 1})


def test_another_run_does_not_get_into_a_folder(tmp_path: Path):
    evaluate(Lengths(), Speaker(), tmp_path, quiet=True)
    with pytest.raises(ConfigError, match=r'model\.name = "speaker"; expected "other"'):
        evaluate(Lengths(), Speaker("other"), tmp_path, quiet=True)
    with pytest.raises(ConfigError, match=r"settings\.epochs = 1; expected 2"):
        evaluate(Lengths(epochs=2), Speaker(), tmp_path, quiet=True)
    with pytest.raises(ConfigError, match=r"generation\.seed = 0; expected 1"):
        evaluate(Lengths(), Speaker(), tmp_path, generation=replace(Lengths.generation, seed=1), quiet=True)
    changed = Lengths()
    changed.name = "other"
    with pytest.raises(ConfigError, match=r'benchmark = "lengths"; expected "other"'):
        evaluate(changed, Speaker(), tmp_path, quiet=True)


def test_a_folder_without_a_reply_is_free(tmp_path: Path):
    """The first try may have had a wrong option or a server that was down."""
    with pytest.raises(ModelError):
        evaluate(Lengths(MANY), Speaker(lost=set(MANY), reason="connection"), tmp_path, quiet=True)
    results = evaluate(Lengths(), Speaker("another"), tmp_path, quiet=True)
    assert results["model"] == {"name": "another"}
    with pytest.raises(ConfigError, match=r"model\.name"):
        evaluate(Lengths(), Speaker(), tmp_path, quiet=True)


def test_what_a_reader_must_know_is_shown(tmp_path: Path):
    class Noted(Lengths):
        def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
            return {"notes": ["the judge says yes to everything"]}

    assert "the judge says yes to everything" in table_of_results(evaluate(Noted(), Speaker(), tmp_path, quiet=True))


@pytest.mark.parametrize("reason", ["connection", "rejected"])
def test_a_model_that_never_replies_ends_the_run_early(reason: str, tmp_path: Path):
    silent = Speaker(lost=set(MANY), reason=reason)
    with pytest.raises(ModelError, match=f"no reply to 16 items in a row; the last one failed with {reason}"):
        evaluate(Lengths(MANY), silent, tmp_path, quiet=True)
    assert silent.asked.total() == 16


def test_a_server_that_dies_in_the_middle_ends_the_run_and_loses_nothing(tmp_path: Path):
    dying = Speaker(lost=set(MANY[20:]), reason="connection")
    with pytest.raises(ModelError, match="no reply to 16 items in a row"):
        evaluate(Lengths(MANY), dying, tmp_path, quiet=True)
    assert dying.asked.total() == 36
    rest = Speaker()
    assert evaluate(Lengths(MANY), rest, tmp_path, quiet=True)["replies"] == 64
    assert rest.asked.total() == 44


@pytest.mark.parametrize("reason", ["too_long", "rejected", "malformed"])
def test_items_that_never_have_a_reply_do_not_stand_in_the_way(reason: str, tmp_path: Path):
    """Not even if they come first, or are all that is open when a run goes on."""
    lost = set(MANY[1:40]) if reason == "rejected" else set(MANY[:40])
    for _ in range(2):
        results = evaluate(Lengths(MANY), Speaker(lost=lost, reason=reason), tmp_path, quiet=True)
        assert results["replies_missing"] == {reason: len(lost)}
        assert results["metrics"]["words"]["items"] == 64 - len(lost)


def test_a_judge_that_is_gone_ends_the_run_and_keeps_the_replies(tmp_path: Path):
    class Judged(Lengths):
        async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
            reason = "1 of 3 verdicts missing (connection)"
            return [Scored({"words": None}, {"words": reason}) for _ in replied]

    with pytest.raises(JudgeError, match="no complete score for 16 items in a row"):
        evaluate(Judged(MANY), Speaker(), tmp_path, quiet=True)
    again = Speaker()
    evaluate(Lengths(MANY), again, tmp_path, quiet=True)
    assert not again.asked


def test_a_finished_run_is_left_as_it_is(tmp_path: Path):
    class Checked(Lengths):
        async def check(self) -> None:
            raise JudgeError("the judge is down")

    results = evaluate(Lengths(), Speaker(), tmp_path, quiet=True)
    before = (tmp_path / "results.json").read_bytes()
    assert evaluate(Checked(), Speaker(), tmp_path, quiet=True) == json.loads(before)
    assert (tmp_path / "results.json").read_bytes() == before
    assert json.loads(before)["metrics"] == results["metrics"]
    with pytest.raises(JudgeError, match="the judge is down"):  # before anything is generated
        evaluate(Checked(), (unasked := Speaker()), tmp_path / "new", quiet=True)
    assert not unasked.asked


def test_one_process_at_a_time(tmp_path: Path):
    with (
        Store(tmp_path / "store.sqlite"),
        pytest.raises(
            ConfigError,
            match=r"another process is using the folder .*; expected .*\. Wait for it, or choose another folder",
        ),
    ):
        evaluate(Lengths(), Speaker(), tmp_path, quiet=True)
    evaluate(Lengths(), Speaker(), tmp_path, quiet=True)


def test_it_runs_where_a_loop_runs_already(tmp_path: Path):
    async def notebook() -> dict[str, Any]:
        return evaluate(Lengths(), Speaker(), tmp_path, quiet=True)

    assert asyncio.run(notebook())["replies"] == 3


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rvpo.evals.run._write_items", full)
    with pytest.raises(ConfigError, match=r"No space left on device; expected .*\. Replies and scores are kept"):
        evaluate(Lengths(), Speaker(), tmp_path, quiet=True)
    monkeypatch.undo()
    again = Speaker()
    assert evaluate(Lengths(), again, tmp_path, quiet=True)["replies"] == 3
    assert not again.asked


def test_items_must_be_there_and_differ(tmp_path: Path):
    with pytest.raises(DataError, match="0 items"):
        evaluate(Lengths(()), Speaker(), tmp_path, quiet=True)
    with pytest.raises(DataError, match="2 items with the id 'a'"):
        evaluate(Lengths(("a", "b", "a")), Speaker(), tmp_path, quiet=True)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="expected a store of `rvpo eval` on a disk with free space"):
        evaluate(Lengths(), Speaker(), tmp_path / "file", quiet=True)
    (tmp_path / "store.sqlite").write_text("this is no database" * 100)
    with pytest.raises(ConfigError, match=r"store\.sqlite: file is not a database"):
        evaluate(Lengths(), Speaker(), tmp_path, quiet=True)


def test_weights_decide_a_mean(tmp_path: Path):
    class Weighted(Lengths):
        async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
            weights = {"a": 2.0, "b": 1.0, "c": 1.0}
            return [
                Scored({"words": scored.scores["words"]}, weights={"words": weights[item.id]})
                for (item, _), scored in zip(replied, await super().score(replied), strict=True)
            ]

    results = evaluate(Weighted(), Speaker(), tmp_path, quiet=True)
    assert results["metrics"]["words"]["mean"] == pytest.approx((2 * 1 + 2 + 3) / 4)
    assert [row["weight/words"] for row in rows(tmp_path)] == [2.0, 1.0, 1.0]


def test_hostile_replies_reach_the_records(tmp_path: Path):
    class Hostile(Speaker):
        async def replies(self, items: Sequence[Item], wanted: Set[Key], generation: Generation) -> Any:
            for item in items:
                yield [(item, Reply("\ud800 \x00 </think>" + "[" * 10_000, finish="\ud800"))]

    evaluate(Lengths(), Hostile(), tmp_path, quiet=True)
    assert rows(tmp_path)[0]["completion"] == "? \x00 </think>" + "[" * 10_000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; expected a whole number of at least 1"),
        ({"temperature": -1.0}, r"temperature is -1\.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
        ({"seed": 1.5}, r"seed is 1\.5"),
    ],
)
def test_generation_refuses_what_cannot_be(options: dict[str, Any], expected: str):
    with pytest.raises(ConfigError, match=expected):
        Generation(**{"max_tokens": 8, **options})
