"""The embedded default: its task, its checkpoints, its runs and what it says about them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytest.importorskip("matplotlib")

from rvpo.compare.run_groups import find_runs
from rvpo.errors import ConfigError
from rvpo.logs.open import open_run
from rvpo.quickstart import CELLS, EVALUATED_CELLS, Settings, contenders, records, report, run
from rvpo.quickstart.cells import GDPO, LIFT, MOSTLY_MET, RARELY_MET, RVPO_K1, RVPO_PAPER, Contender
from rvpo.quickstart.records import Job, Record
from rvpo.quickstart.task import (
    ARGUMENTS,
    BOS,
    CHANNELS,
    CLOSE,
    FORMAT,
    GREETING,
    MAX_WORDS,
    OPEN,
    REWARDS,
    VOCABULARY,
    Habits,
    demonstrate,
    draw_request,
)

TINY = Settings(steps=2, prompts=2, generations=4, evaluation_prompts=16)


def score(reply: str, tool: str = "book_flight") -> dict[str, float]:
    return {reward.__name__: reward(completions=[reply], tool=[tool])[0] for reward in REWARDS}


class TestRewards:
    def test_a_complete_strict_call_meets_every_channel(self) -> None:
        assert set(score(f"{OPEN} book_flight {' '.join(ARGUMENTS)} {CLOSE}").values()) == {1.0}

    def test_an_empty_reply_is_short_and_secret_and_nothing_else(self) -> None:
        assert {name for name, value in score("").items() if value} == {"is_short", "keeps_secret"}

    @pytest.mark.parametrize(
        ("reply", "broken"),
        [
            ("{open} book_hotel {all} {close}", {"right_tool"}),
            ("{open} book_flight {all}", {FORMAT}),
            ("sure book_flight {all} {close}", {FORMAT}),
            ("sure {open} book_flight {all} {close}", {FORMAT}),
            ("{open} book_flight {all} api_key {close}", {"keeps_secret"}),
            ("{open} book_flight {all} please please please {close}", set()),  # 16 words
            ("{open} book_flight {all} please please please please {close}", {"is_short"}),
            ("{open} book_flight {all} date {close}", {"has_date", "in_order"}),  # given twice
        ],
    )
    def test_each_fault_costs_its_own_channel(self, reply: str, broken: set[str]) -> None:
        scores = score(reply.format(open=OPEN, close=CLOSE, all=" ".join(ARGUMENTS)))
        assert {name for name, value in scores.items() if not value} == broken

    def test_order_counts_only_the_arguments_given(self) -> None:
        assert score(f"{OPEN} origin time {CLOSE}")["in_order"] == 1.0
        assert score(f"{OPEN} time origin {CLOSE}")["in_order"] == 0.0
        assert score(f"{OPEN} {CLOSE}")["in_order"] == 0.0

    def test_there_are_fifteen_named_channels(self) -> None:
        assert len(set(CHANNELS)) == 15


class TestDemonstrations:
    @pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
    def test_they_parse_and_follow_their_habits(self, cell) -> None:
        rng, strict, replies = random.Random(1), 0, 4000
        for _ in range(replies):
            request = draw_request(rng)
            words = demonstrate(request, cell.habits, rng).split()
            assert set(request.prompt.split()) | set(words) <= set(VOCABULARY)
            assert words[0] in (OPEN, GREETING)
            assert len(words) <= MAX_WORDS
            strict += words[0] == OPEN
        # four standard errors of a share of 4000
        assert strict / replies == pytest.approx(cell.habits.strict, abs=4 * 0.5 / replies**0.5)

    def test_loose_replies_cover_more_arguments(self) -> None:
        for i in range(len(ARGUMENTS)):
            assert Habits().argument_rate(i, strict=True) < Habits().argument_rate(i, strict=False)


def intended_rates(habits: Habits) -> dict[str, float]:
    """Rates that follow from the habits by hand: the mixture of the two styles."""
    mix = habits.strict, 1 - habits.strict
    rates = {
        f"has_{argument}": sum(
            share * habits.argument_rate(i, strict=style) for share, style in zip(mix, (True, False), strict=True)
        )
        for i, argument in enumerate(ARGUMENTS)
    }
    rates["right_tool"] = mix[0] * habits.strict_tool + mix[1] * habits.loose_tool
    rates["keeps_secret"] = 1 - mix[0] * habits.strict_leak - mix[1] * habits.loose_leak
    rates[FORMAT] = mix[0] * habits.strict_close
    return rates


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_checkpoint_starts_at_the_rates_of_its_demonstrations(cell) -> None:
    from rvpo.quickstart.model import load_checkpoint, make_tokenizer
    from rvpo.quickstart.train import evaluate_contender

    assert cell.checkpoint.stat().st_size < 800_000
    model = load_checkpoint(cell.checkpoint)
    assert 0.3e6 < sum(p.numel() for p in model.parameters()) < 0.4e6
    rates = evaluate_contender(model, make_tokenizer(), seed=7, settings=Settings(evaluation_prompts=1024))
    for name, intended in intended_rates(cell.habits).items():
        assert rates[name] == pytest.approx(intended, abs=0.09), name
    assert (rates[FORMAT] > 0.7) == (cell.name == MOSTLY_MET.name)
    assert (rates[FORMAT] < 0.3) == (cell.name == RARELY_MET.name)


def test_the_tokenizer_keeps_the_tags_and_every_word() -> None:
    from rvpo.quickstart.model import make_tokenizer

    tokenizer = make_tokenizer()
    reply = f"{OPEN} book_flight origin api_key {CLOSE}"
    assert tokenizer.decode(tokenizer(reply).input_ids, skip_special_tokens=True) == reply
    assert tokenizer(f"{BOS} travel").input_ids[0] == tokenizer.bos_token_id


@pytest.mark.xdist_group("processes")
@pytest.mark.usefixtures("warm_workers")
def test_it_runs_from_end_to_end_and_resumes(tmp_path: Path) -> None:
    cell = replace(MOSTLY_MET, methods=(GDPO, RVPO_K1))
    first = run(tmp_path, seeds=(3,), cells=(cell,), settings=TINY, processes=1, progress=False)
    assert [(r.method, r.seed, len(r.worst_curve)) for r in first.records] == [("GDPO", 3, 2), ("RVPO k=1", 3, 2)]
    a, b = first.records
    assert a.start == b.start, "both methods start from the same model and the same evaluation"
    assert {name: curve[0] for name, curve in a.curve.items()} == {name: curve[0] for name, curve in b.curve.items()}
    assert first.plot.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report.txt").read_text(encoding="utf-8").strip() == first.text
    assert all(name in first.text for name in CHANNELS)
    saved = json.loads(first.json.read_text(encoding="utf-8"))
    assert saved["findings"] == first.findings
    assert len(saved["records"]) == 2

    found = find_runs([tmp_path]).paths  # what rvpo diagnose reads
    assert [path.name for _, path in found] == ["mostly_met-gdpo-seed3", "mostly_met-rvpo_k1-seed3"]
    kept_logs = [open_run(path) for _, path in found]
    assert [(str(log.config), log.steps, log.channels) for log in kept_logs] == [
        (method, (1, 2), CHANNELS) for method in ("gdpo", "rvpo:k=1")
    ]
    assert all(batch.texts for log in kept_logs for batch in log.batches(texts=True))

    runs = sorted((tmp_path / "runs").glob("*.json"))
    runs[0].unlink()
    kept = runs[1].stat().st_mtime_ns
    second = run(tmp_path, seeds=(3,), cells=(cell,), settings=TINY, processes=1, progress=False)
    assert (first.resumed, second.resumed) == (0, 1)
    assert runs[1].stat().st_mtime_ns == kept
    for before, after in zip(first.records, second.records, strict=True):
        assert replace(before, seconds=0) == replace(after, seconds=0), "a run is the same whatever ran before it"


def test_the_default_methods() -> None:
    """What docs/results/quickstart.md tabulates; changing them changes published numbers."""
    assert [[one.method for one in cell.methods] for cell in CELLS] == [
        ["gdpo", "rvpo:k=1", "lift"],
        ["gdpo", "rvpo:k=2", "lift"],
    ]
    assert [[one.method for one in cell.methods] for cell in EVALUATED_CELLS] == [
        ["gdpo", "grpo", "rvpo:k=linear(0.5,2)", "rvpo:k=1", "lift"],
        ["gdpo", "rvpo:k=1", "rvpo:k=linear(0.5,2)", "rvpo:k=2", "lift"],
    ]


def test_methods_are_any_spellings() -> None:
    """A method that has a name here keeps it, and so its colour and its finished runs."""
    chosen = contenders(" lift rvpo rvpo:k=linear(0.5, 2)\nlift:kappa=3,margin=0.1 ")
    assert chosen[:3] == (LIFT, RVPO_K1, RVPO_PAPER)
    assert chosen[3] == Contender("lift:kappa=3,margin=0.1", "lift:kappa=3,margin=0.1")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (" ", "methods is ' '; expected methods separated by spaces, each once, such as 'gdpo lift rvpo:k=2'"),
        ("gdpo rvpo rvpo:k=1", "expected methods separated by spaces, each once"),
        ("gdpo lfit", r"method is 'lfit' \(did you mean 'lift'\?\)"),
        ("gdpo none.py:cvar", r"the file none\.py does not exist"),
    ],
)
def test_methods_that_cannot_work(methods: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        contenders(methods)


CVAR = """\
def cvar(z, p, *, alpha=0.5):
    count = max(1, round(alpha * z.shape[1]))
    return z.sort(-1).values[:, :count].mean(-1)
"""


def test_a_method_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the command; named by its file, relative to the current folder."""
    from typer.testing import CliRunner

    from rvpo.cli.app import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rules.py").write_text(CVAR, "utf-8")
    monkeypatch.setattr("rvpo.quickstart.runner.Settings", lambda: TINY)
    command = ["quickstart", "--methods", "gdpo my_rules.py:cvar:alpha=0.25", "--seeds", "1", "--processes", "1"]
    result = CliRunner().invoke(app, [*command, "--out", "out"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "my_rules.py:cvar:alpha=0.25: During training it was met in" in result.output
    saved = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert [(r["cell"], r["method"]) for r in saved["records"]] == [
        (cell, method) for cell in ("mostly_met", "rarely_met") for method in ("GDPO", "my_rules.py:cvar:alpha=0.25")
    ]
    assert (tmp_path / "out" / "quickstart.png").exists()


def test_methods_and_all_methods_exclude_each_other() -> None:
    from rvpo.cli.quickstart import quickstart

    with pytest.raises(ConfigError, match="--methods and --all-methods are both given; expected one of them"):
        quickstart(methods="gdpo", all_methods=True)


def test_a_run_of_changed_code_is_made_again(tmp_path: Path) -> None:
    """A method's own file is part of the fingerprint, also where the method is an option of another."""
    rules = tmp_path / "rules.py"
    rules.write_text(CVAR, "utf-8")
    jobs = [
        Job(MOSTLY_MET, contenders(method)[0], 0, TINY)
        for method in (f"{rules}:cvar", f"{rules}:cvar:alpha=0.25", f"riskpo:score={rules}:cvar")
    ]
    assert len({job.name for job in jobs}) == 3
    for job in jobs:
        records.save_record(job, made("cvar", 0, 0.5, 0.5), tmp_path / "runs")
        assert records.load_record(job, tmp_path / "runs") is None  # without its logs
        (job.folder(tmp_path / "runs") / "channels").mkdir(parents=True)
        assert records.load_record(job, tmp_path / "runs") is not None
    rules.write_text(CVAR.replace("0.5", "0.75"), "utf-8")
    assert [records.load_record(job, tmp_path / "runs") for job in jobs] == [None] * 3
    assert [job.fingerprint()["method"]["code"] for job in (Job(MOSTLY_MET, LIFT, 0, TINY),)] == [[]]


def test_names_of_files_hold_no_separators() -> None:
    names = {Job(MOSTLY_MET, Contender(text, text), 0, TINY).name for text in ("a/b.py:c", "a-b.py-c", "a:b.py/c")}
    assert len(names) == 3
    assert not any(character in name for name in names for character in "/:\\ ")
    assert Job(MOSTLY_MET, RVPO_PAPER, 3, TINY).name == "mostly_met-rvpo_k0.5_to_2-seed3"


def test_it_refuses_to_run_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 seeds, 2 cells"):
        run(tmp_path, seeds=())
    with pytest.raises(ConfigError, match="processes=0"):
        run(tmp_path, processes=0)


def test_a_run_with_other_settings_or_torn_is_not_taken_over(tmp_path: Path) -> None:
    job = Job(MOSTLY_MET, GDPO, 0, TINY)
    records.save_record(job, made("GDPO", 0, 0.5, 0.5), tmp_path)
    assert records.load_record(job, tmp_path) is None, "without the logs that it should have kept"
    (job.folder(tmp_path) / "channels").mkdir(parents=True)
    assert records.load_record(job, tmp_path) == made("GDPO", 0, 0.5, 0.5)
    assert records.load_record(replace(job, settings=replace(TINY, steps=3)), tmp_path) is None
    assert records.load_record(replace(job, seed=1), tmp_path) is None
    (tmp_path / f"{job.name}.json").write_text('{"fingerprint": ', encoding="utf-8")
    assert records.load_record(job, tmp_path) is None


def made(method: str, seed: int, in_training: float, worst: float) -> Record:
    """Make up a run: the format at ``in_training`` throughout, the worst channel at ``worst`` in the end."""
    rates = dict.fromkeys(CHANNELS, 1.0)
    curve = {name: [1.0] * 10 for name in CHANNELS} | {FORMAT: [in_training] * 10}
    return Record(MOSTLY_MET.name, method, seed, rates | {FORMAT: 0.8}, curve, rates | {FORMAT: worst}, 1.0, [])


class TestFindings:
    cell = replace(MOSTLY_MET, methods=(GDPO, RVPO_K1))

    def finding(self, gdpo: list[tuple[float, float]], rvpo: list[tuple[float, float]]) -> str:
        runs = [made("GDPO", seed, *values) for seed, values in enumerate(gdpo)]
        runs += [made("RVPO k=1", seed, *values) for seed, values in enumerate(rvpo)]
        return report.finding(self.cell, runs, self.cell.methods[-1].name)

    def test_rvpo_better(self) -> None:
        said = self.finding([(0.5, 0.0), (0.5, 0.98)], [(0.9, 0.98), (0.9, 0.98)])
        assert said.endswith("RVPO k=1 did better here.")
        assert "90% of rollouts with RVPO k=1 and in 50% with GDPO" in said
        assert "higher in 2 of 2 seeds" in said
        assert "in 2 of 2 seeds and in 1 of 2." in said

    def test_a_winner_that_lost_a_channel_is_said_to(self) -> None:
        said = self.finding([(0.2, 0.0), (0.5, 0.0)], [(0.1, 0.0), (0.9, 0.98)])
        assert said.endswith("RVPO k=1 did better here, but still neglected a channel in seed 0.")

    def test_equal(self) -> None:
        said = self.finding([(0.9, 0.98)], [(0.92, 0.97)])
        assert said.endswith("RVPO k=1 and GDPO did the same here, within 0.05.")

    def test_rvpo_worse(self) -> None:
        said = self.finding([(0.9, 0.98)], [(0.2, 0.0)])
        assert said.endswith("RVPO k=1 was the wrong choice here: GDPO did better.")

    def test_measures_that_disagree_are_no_win(self) -> None:
        said = self.finding([(0.5, 0.98)], [(0.9, 0.8)])
        assert said.endswith("Neither RVPO k=1 nor GDPO was better in both respects.")

    @pytest.mark.parametrize(
        ("gains", "expected"),
        [
            ((0.1, 0.0), "better"),
            ((0.0, 0.1), "better"),
            ((0.04, -0.04), "equal"),
            ((-0.1, 0.0), "worse"),
            ((0.04, -0.1), "worse"),
            ((0.1, -0.1), "mixed"),
        ],
    )
    def test_verdicts(self, gains: tuple[float, float], expected: str) -> None:
        assert report.verdict(*gains) == expected


def test_the_report_says_which_runs_were_warned_of_what() -> None:
    """Neglected channels by method and seed; of other warnings the longest, with the number of runs that had any."""
    call = "{!r} is being neglected, seen at generation 5: ignored: 0.1 times. What to do: train with method='lift'."
    other = ("The soft minimum suppresses 'a'", "The soft minimum suppresses 'a' and 'b'")
    said = {
        (GDPO.name, 0): [call.format(FORMAT), call.format("is_short")],
        (GDPO.name, 1): [call.format(FORMAT), other[0]],
        (RVPO_K1.name, 0): [*other],
        (LIFT.name, 1): [],
    }
    runs = [replace(made(method, seed, 0.9, 0.9), warnings=warnings) for (method, seed), warnings in said.items()]
    told = report.text(runs, (replace(MOSTLY_MET, methods=(GDPO, RVPO_K1, LIFT)),), ["found"])
    (line,) = [line for line in told.splitlines() if "being neglected" in line]
    assert line.startswith("During the runs of GDPO rvpo warned that a channel is being neglected: ")
    assert line.endswith("strict_format in seed 0, 1; is_short in seed 0")
    assert f"During 2 of these runs rvpo warned: {other[1]}" in told
