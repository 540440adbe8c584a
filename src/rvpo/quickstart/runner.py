"""Make all runs of the quickstart, several at a time, and report on them. A killed quickstart can be continued."""

from __future__ import annotations

import json
import logging
import multiprocessing as mp
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

from rvpo import interrupts
from rvpo.errors import ConfigError, EngineError
from rvpo.extras import install_command
from rvpo.files import write
from rvpo.quickstart import plot, records, report
from rvpo.quickstart.cells import CELLS, Cell, Settings
from rvpo.quickstart.records import Job, Record

_steps: Queue[int] | None = None  # in a worker: the queue on which it announces each finished step


@dataclass(frozen=True)
class Results:
    """Results of a quickstart.

    Attributes:
        records: all runs, finished now or earlier.
        text: the report, with tables and findings.
        findings: one computed paragraph per cell.
        plot: path of the PNG.
        json: path of the same results as JSON.
        seconds: wall time of this call, in seconds.
        resumed: number of runs that were finished before this call.
    """

    records: list[Record]
    text: str
    findings: list[str]
    plot: Path
    json: Path
    seconds: float
    resumed: int


def run(
    out_dir: str | Path,
    seeds: Sequence[int] = range(5),
    cells: Sequence[Cell] = CELLS,
    settings: Settings | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> Results:
    """Train every method of every cell with every seed, and write a table, a plot and the numbers.

    All methods of a cell start from the same model. Each finished run is written to ``out_dir/runs`` immediately. A
    second call on the same folder makes only the runs that are missing or that were made with other settings.

    Args:
        out_dir: folder for ``report.txt``, ``quickstart.png``, ``results.json`` and ``runs/``, which has a file and a
            folder per run. ``rvpo diagnose out_dir`` reads these.
        seeds: seeds of prompts and sampling. The warm-started model is the same for all seeds.
        cells: starts and methods. ``EVALUATED_CELLS`` has more methods than the default.
        settings: settings of the RL run; None takes the defaults.
        processes: number of runs at the same time, each on one thread; None takes the number of usable cores.
        progress: whether to show a progress bar on the terminal.

    Raises:
        ConfigError: ``seeds`` or ``cells`` is empty, or ``processes`` is less than 1.
        EngineError: TRL or matplotlib is not installed.
    """
    _check(seeds, cells, processes)
    began, folder = time.perf_counter(), Path(out_dir)
    settings = settings or Settings()
    jobs = [Job(cell, method, seed, settings) for cell in cells for seed in seeds for method in cell.methods]
    finished = {job: record for job in jobs if (record := records.load_record(job, folder / "runs")) is not None}
    todo = [job for job in jobs if job not in finished]
    if todo:
        with interrupts.says(lambda: _kept(len(finished), len(jobs), folder / "runs"), seconds=5.0):
            _train_all(todo, finished, folder / "runs", processes or _cores(), progress)
    made = [finished[job] for job in jobs]

    findings = report.findings(made, cells)
    text = report.text(made, cells, findings)
    write(folder / "report.txt", text + "\n")
    image = plot.draw_curves(made, cells, folder / "quickstart.png")
    seconds = time.perf_counter() - began
    numbers = {
        "settings": asdict(settings),
        "findings": findings,
        "summary": report.summary_of_runs(made, cells),
        "records": [asdict(record) for record in made],
        "seconds": seconds,
    }
    path = folder / "results.json"
    write(path, json.dumps(numbers, indent=1))
    return Results(made, text, findings, image, path, seconds, resumed=len(jobs) - len(todo))


def _check(seeds: Sequence[int], cells: Sequence[Cell], processes: int | None) -> None:
    """Raise now for settings that would fail minutes later."""
    if not seeds or not cells or (processes is not None and processes < 1):
        raise ConfigError(
            f"{len(seeds)} seeds, {len(cells)} cells and processes={processes} given: pass at least one of each, "
            "or leave them out for the defaults"
        )
    absent = [package for package in ("trl", "transformers", "datasets", "matplotlib") if find_spec(package) is None]
    if absent:
        raise EngineError(f"the quickstart needs {', '.join(absent)}: {install_command('trl', 'plot')}")


def _kept(finished: int, runs: int, folder: Path) -> str:
    """Return a sentence about what an interrupted quickstart keeps."""
    kept = f"{finished} of {runs} runs are finished and saved in {folder}" if finished else "no run is finished yet"
    return f"{kept}; the same command continues"


def _train_all(jobs: list[Job], finished: dict[Job, Record], folder: Path, processes: int, progress: bool) -> None:
    """Make ``jobs`` in spawned processes and add them to ``finished``. The first failure stops all of them.

    Raises:
        EngineError: a process ended without a result.
    """
    context = mp.get_context("spawn")  # a forked process would inherit torch's thread pools
    steps: Queue[int] | None = context.Queue() if progress else None
    end = context.Event()
    with (
        nullcontext() if steps is None else _ProgressBar(sum(job.settings.steps for job in jobs), steps),
        # A worker that is stopped during a run does not remove its temporary folder.
        tempfile.TemporaryDirectory(prefix="rvpo-quickstart-", ignore_cleanup_errors=True) as temporary,
        ProcessPoolExecutor(min(processes, len(jobs)), context, _start_worker, (steps, end, temporary)) as pool,
    ):
        try:
            with _signals_for_this_process_alone():
                futures: dict[Future[Record], Job] = {pool.submit(_make, job, job.folder(folder)): job for job in jobs}
            for future in as_completed(futures):
                job = futures[future]
                record = future.result()
                records.save_record(job, record, folder)
                finished[job] = record
        except BrokenProcessPool as error:
            end.set()
            raise EngineError(
                f"a process of the quickstart ended without a result, probably because memory ran out. {len(finished)} "
                "finished runs are saved: run the same command again, with fewer --processes"
            ) from error
        except BaseException:
            # The pool waits for its workers. They stop at once; a cancelled pool would let them finish their runs.
            end.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _signals_for_this_process_alone() -> Iterator[None]:
    """Block signals while workers start, because workers inherit the block.

    Ctrl-C reaches the whole process group, but then stops only this process. Signals that arrive here in the meantime
    are handled after the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # start it before: it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(steps: Queue[int] | None, end: Event, temporary: str) -> None:
    """Prepare a worker before it imports large packages."""
    for wait_for in (end.wait, _wait_for_the_end_of_the_quickstart):
        threading.Thread(target=_end_after, args=(wait_for,), daemon=True).start()
    warnings.filterwarnings("ignore", category=FutureWarning)  # from TRL's use of transformers; users cannot act on it
    global _steps  # a queue reaches a worker only while it starts
    _steps = steps
    tempfile.tempdir = temporary
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    torch.set_num_threads(1)  # the model is too small for several threads, and one thread always sums in the same order


def _end_after(wait_for: Callable[[], object]) -> None:
    """End this worker once ``wait_for`` returns, so that it does not train for a quickstart that has ended."""
    wait_for()
    os._exit(1)


def _wait_for_the_end_of_the_quickstart() -> None:
    """Wait until the process of the quickstart has ended, also if it was killed."""
    parent = mp.parent_process()
    if parent is None:
        threading.Event().wait()
    else:
        wait([parent.sentinel])


def _make(job: Job, folder: Path) -> Record:
    """Make one run, in a worker."""
    from rvpo.quickstart.train import train_contender

    def on_step() -> None:
        if _steps is not None:
            _steps.put(1)

    with _collected_warnings() as collected:
        rates = train_contender(job, on_step, folder)
    return Record(job.cell.name, job.contender.name, job.seed, **rates, warnings=collected)


class _collected_warnings(logging.Handler):  # noqa: N801 (reads as a function)
    """Collect warnings of ``rvpo`` for the report. Printed from several workers, they would break the progress bar."""

    def __enter__(self) -> list[str]:
        self._collected: list[str] = []
        logger = logging.getLogger("rvpo")
        logger.addHandler(self)
        self._propagate, logger.propagate = logger.propagate, False
        return self._collected

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("rvpo")
        logger.removeHandler(self)
        logger.propagate = self._propagate

    def emit(self, record: logging.LogRecord) -> None:
        self._collected.append(record.getMessage())


class _ProgressBar:
    """A progress bar over the steps of all runs. A thread updates it from the workers' queue."""

    def __init__(self, total: int, steps: Queue[int]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._steps = steps
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._task = self._bar.add_task("training steps", total=total)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        while count := self._steps.get():
            self._bar.advance(self._task, count)

    def __enter__(self) -> None:
        self._bar.start()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._steps.put(0)
        self._thread.join()
        self._bar.stop()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
