"""Train rules in worlds with oracles, resuming what an earlier call left undone.

    python benchmarks/worlds/run.py --output runs/worlds --parallel 2                  # all worlds, the named rules
    python benchmarks/worlds/run.py --output runs/worlds --worlds design plain --rules GDPO LIFT lift:kappa=4
    python benchmarks/worlds/run.py --output runs/worlds --rules my_rules.py:make      # a factory, see rules.py
    python benchmarks/worlds/table.py runs/worlds

A finished world x rule is a file of records, one JSON object per run, so the same command goes on where it was cut off.
From Python, for factories under study (records of a factory are made again when its source file has changed):

    from run import study
    from table import Results, text
    study({"mine": make}, worlds=["given", "design"], output="runs/worlds", seeds=range(8), parallel=2)
    print(text(Results.read("runs/worlds", seeds=range(8))))
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import inspect
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core per process

import torch
from rules import RULES, Factory, Spec, step_of
from train import Curves, train, train_oracles
from world import World
from worlds import WORLDS, named

from rvpo.core.methods.registry import read_texts, spell
from rvpo.errors import ConfigError

Rule = str | Spec | Factory

ORACLES = "oracles"
"""Stands for the three oracles in the names of files."""
POINTS = 21  # of the curve that is kept of a run
SEEDS = 16

_rules: dict[str, Rule] = {}  # by name, for the processes that are forked


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/worlds"), help="folder of the records")
    parser.add_argument("--list", action="store_true", help="print the names of the worlds and train nothing")
    parser.add_argument("--worlds", nargs="+", metavar="WORLD", help="names, or given, design, confirm; default: all")
    parser.add_argument(
        "--rules", nargs="+", metavar="RULE", default=list(RULES),
        help=f"method texts, FILE.py:FACTORY, or names: {', '.join(RULES)}; default: all names",
    )  # fmt: skip
    parser.add_argument(
        "--methods", help="in place of --rules: 'gdpo lift:kappa=3 my_rules.py:cvar', all of them methods"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="number of seeds")
    parser.add_argument("--fresh", action="store_true", help="train again what is done")
    parser.add_argument("--parallel", type=int, default=1, help="processes, a core each")
    args = parser.parse_args()
    try:
        worlds = named(args.worlds or list(WORLDS))
        if args.list:
            print("\n".join(worlds))
            return
        rules: Mapping[str, Rule] = {name: loaded(name) for name in args.rules}
        if args.methods:
            rules = {text: Spec(text) for text in map(spell, read_texts(args.methods))}
    except (ValueError, ConfigError) as error:
        parser.error(str(error))
    study(rules, worlds, args.output, range(args.seeds), args.parallel, args.fresh)


def loaded(name: str) -> Rule:
    """Return a named rule or a method text as it is, and a factory for ``FILE.py:FACTORY``."""
    file, colon, attribute = name.partition(".py:")
    if not colon or ":" in attribute:
        return name
    path = Path(file + ".py").resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise ValueError(f"cannot read {path}; expected a Python file with a factory")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    factory: Factory = getattr(module, attribute)
    return factory


def study(
    rules: Mapping[str, Rule] | Sequence[str],
    worlds: Sequence[str] = (),
    output: str | Path = "runs/worlds",
    seeds: Sequence[int] = range(SEEDS),
    parallel: int = 1,
    fresh: bool = False,
) -> None:
    """Train rules and the oracles in worlds, and write a file of records for each.

    Args:
        rules: by name: a name of ``RULES``, a method text, or a factory (see rules.py); or a list of names and texts.
        worlds: names and splits; all by default.
        output: folder of the records.
        seeds: seeds of the runs.
        parallel: number of processes.
        fresh: whether to train again what is done. Oracles are kept.
    """
    _rules.clear()
    _rules.update(rules if isinstance(rules, Mapping) else {name: name for name in rules})
    folder = Path(output) / "records"
    folder.mkdir(parents=True, exist_ok=True)
    names = named(list(worlds) or list(WORLDS))
    wanted = [(world, rule) for world in names for rule in (ORACLES, *_rules)]
    jobs = [
        (world, rule, folder, tuple(seeds))
        for world, rule in wanted
        if (fresh and rule != ORACLES) or not _done(folder, world, rule, seeds)
    ]
    print(f"{len(wanted) - len(jobs)} of {len(wanted)} worlds x rules are done already", flush=True)
    began = time.perf_counter()
    # Forked, because factories may be closures, which cannot be sent to a process.
    with multiprocessing.get_context("fork").Pool(parallel) as pool:
        for i, line in enumerate(pool.imap_unordered(_run, jobs, chunksize=1), 1):
            print(f"[{i}/{len(jobs)}, {time.perf_counter() - began:.0f} s] {line}", flush=True)


def record_file(folder: Path, world: str, rule: str) -> Path:
    """Return the file of the records of a rule in a world."""
    return folder / f"{world}--{quote(rule.replace(' ', '_'), safe='=,')}.jsonl"


def source_of(rule: Rule | None) -> str:
    """Return a hash of the file in which a factory is written, "" for methods."""
    if rule is None or isinstance(rule, (str, Spec)):
        return ""
    function = inspect.unwrap(getattr(rule, "func", rule))
    try:
        return hashlib.sha1(Path(inspect.getfile(function)).read_bytes()).hexdigest()[:12]
    except (TypeError, OSError):  # a callable object
        return hashlib.sha1(Path(inspect.getfile(type(function))).read_bytes()).hexdigest()[:12]


def records_of(world: World, rule: str, curves: Curves, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return one record per run.

    A record has the channels' true shares as ``mean`` over the steps after the first, at the ``start`` and ``final``;
    ``worst``, the lowest counted share at 21 steps from start to end; ``dip``, how far a counted channel fell below its
    start at most; ``wobble``, the largest standard deviation of a counted channel in the last quarter; ``entropy`` and
    ``divergence`` from the start in nats.
    """
    records = []
    every = [round(i) for i in torch.linspace(0, curves.shares.shape[2] - 1, POINTS).tolist()]
    for (i, rate), (j, seed) in product(enumerate(world.rates), enumerate(seeds)):
        shares = curves.shares[i, j]
        counted = shares[:, world.counts]
        tail = counted[-(len(counted) // 4) :]
        records.append(
            {
                "world": world.name,
                "rule": rule,
                "rate": rate,
                "seed": seed,
                "mean": _rounded(shares[1:].mean(0)),
                "start": _rounded(shares[0]),
                "final": _rounded(shares[-1]),
                "worst": _rounded(counted.amin(1)[every]),
                "dip": round((counted[0] - counted).max().item(), 5),
                "wobble": round(tail.std(0, correction=0).max().item(), 5),
                "entropy": round(curves.entropy[i, j].item(), 4),
                "divergence": round(curves.divergence[i, j].item(), 4),
            }
        )
    return records


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def _done(folder: Path, world: str, rule: str, seeds: Sequence[int]) -> bool:
    path = record_file(folder, world, rule)
    if not path.exists():
        return False
    records = [json.loads(line) for line in path.read_text().splitlines()]
    have = {(record["rate"], record["seed"]) for record in records}
    same = all(record.get("source", "") == source_of(_rules.get(rule)) for record in records)
    return same and have >= set(product(WORLDS[world].rates, seeds))


def _run(job: tuple[str, str, Path, tuple[int, ...]]) -> str:
    name, rule, folder, seeds = job
    torch.set_num_threads(1)
    world, began = WORLDS[name], time.perf_counter()
    if rule == ORACLES:
        curves = train_oracles(world, seeds)
    else:
        curves = {rule: train(world, step_of(_rules[rule], world, len(world.rates) * len(seeds)), seeds)}
    records = [record for key, curve in curves.items() for record in records_of(world, key, curve, seeds)]
    if source := source_of(_rules.get(rule)):
        records = [{**record, "source": source} for record in records]
    path = record_file(folder, name, rule)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(record) + "\n" for record in records))
    partial.rename(path)
    return f"{name}, {rule}: {len(records)} runs in {time.perf_counter() - began:.1f} s"


if __name__ == "__main__":
    main()
