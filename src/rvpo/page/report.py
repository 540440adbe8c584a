"""Collect the data of the page: diagnoses, replays, samples and a comparison of runs, small enough for one file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

import rvpo
from rvpo.arrays.groups import Array
from rvpo.compare.comparison import TrainingComparison
from rvpo.compare.tables import lines_of_exploration, table_of_tests
from rvpo.core import AdvantageConfig
from rvpo.core.methods.registry import build_method
from rvpo.diagnose.aggregating import has_torch, shares_of
from rvpo.diagnose.conclusion import conclusion
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.diagnosis import Diagnosis, or_none
from rvpo.diagnose.exploration import QuestionCurves, Series
from rvpo.diagnose.exploration_text import exploration_notes
from rvpo.diagnose.joining import Joined, joined
from rvpo.diagnose.remedies import remedies
from rvpo.diagnose.replay import DEFAULT, Replay, replay
from rvpo.diagnose.several import headline
from rvpo.diagnose.text import pooled_notes, summary
from rvpo.errors import RewardError
from rvpo.extras import install_command
from rvpo.logs.engine import engine_of, function_weights
from rvpo.logs.run import LoggedBatch, Run
from rvpo.page import render
from rvpo.page.pictures import pictures_of

LIMIT = 10_000_000  # bytes of the file
NUMBERS = 250_000  # points of all curves together
SAMPLES = 240  # samples of all runs together
_SERIES = 13  # curves per channel
LONGEST = 4_000  # characters of a text
TESTED = {"auc": "mean over training", "last": "at the end"}
CELLS = 60  # channels shown per sample, the lowest first
EPS = AdvantageConfig().eps
"""Added to the standard deviations of the z-scores of samples, as in training."""

PRESETS: tuple[Mapping[str, Any], ...] = (
    {
        "name": "Constraint neglect (as in Figure 1)",
        "channels": ["correct", "helpful", "safe"],
        "rewards": [[1.0, 1.0, 0.0], [0.7, 0.6, 1.0], [0.3, 0.2, 1.0], [0.1, 0.2, 1.0]],
        "note": "The first completion is brilliant but breaks the constraint. A mean encourages it, and a soft minimum "
        "does not: move k to see it. (The idea is from the paper's Figure 1; the numbers are ours.)",
    },
    {
        "name": "A rare success",
        "channels": ["fluent", "polite", "strict format"],
        "rewards": [[0.2, 0.3, 1.0], [0.7, 0.8, 0.0], [0.9, 0.6, 0.0], [0.4, 0.9, 0.0], [0.6, 0.4, 0.0]],
        "note": "Only the first completion meets the format. The larger k is, the less this counts: a soft minimum "
        "protects what is mostly met, and slows the learning of what is rarely met.",
    },
    {
        "name": "One reward on a large scale",
        "channels": ["correctness", "format"],
        "rewards": [[3.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [-3.0, 0.0]],
        "ranges": [[-3.0, 3.0], [0.0, 1.0]],
        "note": "GRPO sums raw rewards, so the format hardly matters. The other rules put each on its own scale.",
    },
    {
        "name": "Dead and missing",
        "channels": ["a", "b", "same for all"],
        "rewards": [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [None, 1.0, 1.0], [0.5, None, 1.0]],
        "note": "An empty cell was not scored: it is left out, and does not count as 0. A channel that is the same for "
        "all completions ranks none of them.",
    },
)


def build_report(
    runs: Sequence[Run],
    *,
    title: str | None = None,
    assumed: AdvantageConfig | None = None,
    k: float = 1.0,
    comparison: TrainingComparison | None = None,
    diagnoses: Sequence[Diagnosis] | None = None,
    live: bool = False,
    limit: int = LIMIT,
) -> str:
    """Return the text of the page.

    Args:
        runs: one or more runs.
        title: title of the page; None uses the runs' names.
        assumed: method of the runs, if the logs do not have it.
        k: risk coefficient of the soft minimum that gives the responsibilities.
        comparison: comparison of the runs by method, or None.
        diagnoses: diagnoses of the runs, if they exist already; None computes them.
        live: whether the page reloads its data while the run trains.
        limit: maximum size of the page, in bytes. Samples, then points of curves, are left out until it fits.
    """
    found = list(diagnoses or [diagnose(run, k=k, assumed=assumed) for run in runs])
    found = [replace(diagnosis, notes=(*pooled_notes(diagnosis), *diagnosis.notes)) for diagnosis in found]
    if not has_torch():
        found = [replace(diagnosis, notes=(*diagnosis.notes, _no_replay())) for diagnosis in found]
    replays = [_replayed(run, assumed) if has_torch() else None for run in runs]
    described = [_described(*each) for each in zip(runs, found, replays, strict=True)]
    each = max(4, SAMPLES // len(runs))
    drawn = [samples(run, each, k) for run in runs]  # drawn once; a page that is too large shows fewer of them
    points = max(20, min(300, NUMBERS // sum(_SERIES * len(run.channels) for run in runs)))
    shown = [pictures_of(run, chosen) for run, chosen in zip(runs, drawn, strict=True)]
    while True:
        data = {
            "schema": "rvpo.report/1",
            "title": title or ", ".join(run.name for run in runs[:3]) + (" …" if len(runs) > 3 else ""),
            "generated": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "version": rvpo.__version__,
            "runs": [
                {
                    "name": run.name,
                    "path": str(run.path),
                    "diagnosis": _thinned(diagnosis, points),
                    "samples": (some := _some(chosen, each)),
                    "pictures": {name: address for name, address in pictures.items() if _has(some, name)},
                    **rest,
                }
                for run, diagnosis, rest, chosen, pictures in zip(runs, found, described, drawn, shown, strict=True)
            ],
            "headline": headline(found) if len(found) > 1 else None,
            "comparison": comparison and _comparison(comparison),
            "presets": PRESETS,
            "live": live,
        }
        text = render(_rounded(data))
        if len(text.encode("utf-8", "replace")) <= limit or (not each and points <= 20):
            return text
        each, points = (each // 4, points) if each else (0, points // 2)


def _some(samples: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return at most ``count`` samples, evenly spaced."""
    return [samples[i * len(samples) // count] for i in range(count)] if count < len(samples) else list(samples)


def _has(samples: Sequence[Mapping[str, Any]], picture: str) -> bool:
    return any(picture in sample["pictures"] for sample in samples)


def _comparison(compared: TrainingComparison) -> dict[str, Any]:
    """Return what the page shows of a comparison: curves by method, and the tests of two measures."""
    groups = {}
    explored = {
        group.name: {f"exploration: {name}": band for name, band in group.curves.items()} for group in compared.explored
    }
    for group in compared.groups:
        groups[group.name] = {
            "runs": [{"name": run.name, "seed": run.seed} for run in group.runs],
            "curves": {
                name: {"steps": compared.steps, "mean": band.mean, "low": band.low, "high": band.high}
                for name, band in (group.bands() | explored.get(group.name, {})).items()
            },
        }
    tables = {words: table_of_tests(compared, measure) for measure, words in TESTED.items()}
    head = ["measure", *next(iter(tables.values()))[0]]
    rows = [[words, *line] for words, (_, *lines) in tables.items() for line in lines]
    for measure, words in TESTED.items():
        rows += [[words, *line] for line in lines_of_exploration(compared, measure)]
    table = {"head": head, "rows": rows}
    return {"baseline": compared.baseline, "groups": groups, "table": table, "notes": compared.notes}


def samples(run: Run, count: int, k: float, seed: int = 0) -> list[dict[str, Any]]:
    """Return sample completions, equally many per lowest channel, drawn at random from the whole run.

    Args:
        run: run to draw from. If its logs contain no completions, the result is empty.
        count: maximum number of samples.
        k: risk coefficient of the soft minimum that finds the lowest channel.
        seed: random seed of the draw.

    Returns:
        One mapping per sample, by step, with texts, pictures and the values of each channel.
    """
    rng = random.Random(seed)
    share = max(2, count // max(1, len(run.channels)))
    kept: dict[str | None, list[tuple[LoggedBatch, int]]] = {}
    seen: dict[str | None, int] = {}
    for batch, lowest in _with_bottlenecks(run, k):
        channel = np.broadcast_to(batch.channel, lowest.shape)
        for i, (value, column) in enumerate(zip(lowest.max(1).tolist(), lowest.argmax(1).tolist(), strict=True)):
            name = run.channels[int(channel[i, column])] if value > 0 else None
            # Reservoir sampling: every completion of the run has the same chance to be kept.
            seen[name] = number = seen.get(name, 0) + 1
            place = len(kept.setdefault(name, [])) if number <= share else rng.randrange(number)
            if place < share:
                group = np.flatnonzero(batch.groups == batch.groups[i])  # z-scores need only the group
                kept[name][place : place + 1] = [(batch.rows(group), int(np.searchsorted(group, i)))]
    chosen = [(name, batch, i) for name, rows in kept.items() for batch, i in rows]
    rng.shuffle(chosen)
    return sorted((_sample(run, name, batch, i, k) for name, batch, i in chosen[:count]), key=lambda s: s["step"])


def _with_bottlenecks(run: Run, k: float) -> Iterator[tuple[LoggedBatch, Array]]:
    """Yield each batch that has texts, with the lowest channel of its completions, (N, M)."""
    for one in joined(map(Joined.single, run.batches(texts=True))):
        if one.batch.texts is not None:
            lowest = shares_of(one.batch, run, k, EPS, one.groups).bottlenecks()
            ends = np.cumsum([len(batch.groups) for batch in one.parts])
            yield from zip(one.parts, np.split(lowest, ends[:-1]), strict=True)


def _sample(run: Run, worst: str | None, batch: LoggedBatch, i: int, k: float) -> dict[str, Any]:
    assert batch.texts is not None  # samples are drawn only from batches with texts
    if run.details is not None and batch.numbers is not None:
        number = int(batch.numbers[i])
        cells = run.details(batch.step, [number])[number]
    else:
        cells = _cells(run, batch, i, k)
    cells = sorted(cells, key=lambda cell: (cell["z"] is None, cell["z"] or 0.0))[:CELLS]
    return {
        "step": batch.step,
        "worst": worst,
        "advantage": None if batch.advantages is None else float(batch.advantages[i]),
        "prompt": _short(_readable(batch.texts.prompts[i])),
        "completion": _short(_readable(batch.texts.completions[i])),
        "pictures": list(batch.texts.pictures[i]) if batch.texts.pictures else [],
        "cells": [
            cell | {key: _short(cell[key]) for key in ("text", "reason", "detail") if cell[key]} for cell in cells
        ],
    }


def _cells(run: Run, batch: LoggedBatch, i: int, k: float) -> list[dict[str, Any]]:
    result = shares_of(batch, run, k, EPS)
    channel = np.broadcast_to(batch.channel, result.z.shape)
    return [
        {
            "channel": run.channels[int(channel[i, j])],
            "criterion": None,
            "text": None,
            "reward": or_none(result.rewards[i, j].item()),
            "z": or_none(result.z[i, j].item()),
            "responsibility": or_none(result.responsibilities[i, j].item()),
            "reason": None,
            "detail": None,
        }
        for j in range(result.z.shape[1])
        if bool(result.applies[i, j])
    ]


def _no_replay() -> str:
    return f"this page does not replay other methods, because torch is not installed: {install_command('torch')}"


def _replayed(run: Run, assumed: AdvantageConfig | None) -> Replay | None:
    """Return a replay with the default rules; None if the logs have no advantages to compare with."""
    first = next(run.batches(), None)
    if first is None or (first.advantages is None and assumed is None) or first.groupings:
        return None
    try:
        return replay(run, [AdvantageConfig(build_method(text)) for text in DEFAULT], assumed=assumed)
    except RewardError:
        return None


def _described(run: Run, diagnosis: Diagnosis, replayed: Replay | None) -> dict[str, Any]:
    """Return what the page says about a run in words: the summary, one card per neglected channel, the replay."""
    cards = remedies(diagnosis, replayed, engine=engine_of(run), weights=function_weights(run))
    return {
        "summary": summary(diagnosis),
        "exploration": exploration_notes(diagnosis.exploration),
        "cards": [card.to_json() for card in cards],
        "replay": replayed and _replay_data(run, diagnosis, replayed),
    }


def _replay_data(run: Run, diagnosis: Diagnosis, replayed: Replay) -> dict[str, Any]:
    own = {"method": replayed.own or "unknown", "largest_difference": replayed.own_difference, "note": ""}
    return {
        "own": own,
        "conclusion": conclusion(diagnosis, replayed),
        "notes": [note for note in replayed.notes if note not in run.notes],  # the page shows the run's notes above
        "rules": [{"label": rule.method, **asdict(rule)} for rule in replayed.rules],
    }


def _thinned(diagnosis: Diagnosis, points: int) -> dict[str, Any]:
    """Return a diagnosis as JSON, with neighbouring points averaged so that each curve has at most ``points``."""
    steps = diagnosis.curves.steps
    size = -(-len(steps) // points)
    if size <= 1:
        return diagnosis.to_json()
    starts = range(0, len(steps), size)

    def average(values: Sequence[float | None]) -> tuple[float | None, ...]:
        parts = ([x for x in values[start : start + size] if x is not None] for start in starts)
        return tuple(sum(part) / len(part) if part else None for part in parts)

    curves = {
        name: {channel: average(values) for channel, values in getattr(diagnosis.curves, name).items()}
        for name in ("mean", "responsibility", "correlation", "live", "missing")
    }
    ends = tuple(steps[min(start + size, len(steps)) - 1] for start in starts)
    thinned = diagnosis.exploration
    if thinned is not None:
        thinned = replace(
            thinned,
            steps=ends,
            solved=thinned.solved and _averaged(thinned.solved, average),
            channels={name: _averaged(one, average) for name, one in thinned.channels.items()},
            entropy=thinned.entropy and average(thinned.entropy),
        )
    return replace(diagnosis, curves=replace(diagnosis.curves, steps=ends, **curves), exploration=thinned).to_json()


def _averaged(curves: QuestionCurves, average: Callable[[Series], Series]) -> QuestionCurves:
    passes = {k: average(values) for k, values in curves.passes.items()}
    return QuestionCurves(average(curves.none), average(curves.some), average(curves.all), passes)


def _rounded(value: Any) -> Any:
    """Round every number to five digits. More cannot be seen and would make the file larger."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_rounded(inner) for inner in value]
    return value


def _readable(text: str) -> str:
    """Return a chat, which logs store as JSON, as its messages with their roles. A single reply needs no role."""
    try:
        chat = json.loads(text) if text.startswith("[{") else None
        messages = [(str(message["role"]), _content(message["content"])) for message in chat or ()]
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
    if not messages or not all(isinstance(content, str) for _, content in messages):
        return text
    if len(messages) == 1 and messages[0][0] == "assistant":
        return str(messages[0][1])
    return "\n\n".join(f"{role}: {content}" for role, content in messages)


def _content(content: Any) -> Any:
    """Return the parts of a message, texts and pictures, as one text."""
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return content
    return "".join(
        part["text"] if part.get("type") == "text" and isinstance(part.get("text"), str) else f"[{part.get('type')}]"
        for part in content
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST:,} more characters)"
