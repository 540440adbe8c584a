"""Run every property on a target, and report the results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rvpo.conformance.processes import PROCESSES, compare_processes
from rvpo.conformance.properties import DESCRIPTIVE, REQUIRED, Fault, Property, unmet
from rvpo.conformance.properties.numbers import OUTPUT
from rvpo.conformance.shrink import shrink_example
from rvpo.conformance.target import CallError, Example, NotHereError, Target

PASS, FAIL, NOT_APPLICABLE, NOTE = "PASS", "FAIL", "n.a.", "note"
RAISES = "it raises on ordinary batches"
"""Why a function that never answers is not asked for more."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """Result of one property.

    Attributes:
        asked: the property.
        status: ``PASS``, ``FAIL``, ``NOT_APPLICABLE``, or ``NOTE`` for a property that only describes.
        holds: whether the property holds; None if it is not applicable.
        remark: why it is not applicable, or which weaker form was checked.
        batches: number of batches on which it was checked.
        example: the smallest failing batch.
        fault: what went wrong on this batch.
    """

    asked: Property
    status: str
    holds: bool | None
    remark: str = ""
    batches: int = 0
    example: Example | None = None
    fault: Fault | None = None


@dataclass(frozen=True)
class Report:
    """Results of all properties.

    Attributes:
        target: the function.
        findings: one per property, the required ones first.
    """

    target: Target
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> list[Finding]:
        """The required properties that do not hold."""
        return [finding for finding in self.findings if finding.status == FAIL]

    @property
    def passed(self) -> bool:
        """Whether every required property that applies holds."""
        return not self.failures

    def __getitem__(self, name: str) -> Finding:
        """Return the result of the property ``name``."""
        return next(finding for finding in self.findings if finding.asked.name == name)


PROPERTIES = len(REQUIRED) + len(DESCRIPTIVE) + 1
"""Number of properties that a report has; one of them is about several processes."""


def run_checks(
    target: Target,
    *,
    seeds: int = 3,
    processes: int = 1,
    timeout: float = 120.0,
    local_rows: bool = False,
    progress: Callable[[Finding], None] | None = None,
) -> Report:
    """Check all properties of a function.

    Args:
        target: the function.
        seeds: number of batches per shape.
        processes: number of processes for the multi-process check; 1 skips it.
        timeout: seconds after which processes without an answer are stopped.
        local_rows: whether each process passes only its own rows, for a function that gathers the others itself.
        progress: function that is called with each result as soon as it is known.
    """
    findings = []
    for finding in _findings(target, seeds, processes, timeout, local_rows):
        findings.append(finding)
        if progress is not None:
            progress(finding)
    return Report(target, tuple(findings))


def _findings(target: Target, seeds: int, processes: int, timeout: float, local_rows: bool) -> Iterator[Finding]:
    first = examine(target, OUTPUT, seeds)
    yield first
    broken = first.fault is not None and first.fault.kind == "raised" and not _ever_answers(target, seeds)
    for asked in (*REQUIRED, *DESCRIPTIVE):
        if asked is OUTPUT:
            continue
        if broken:
            yield Finding(asked, NOT_APPLICABLE, None, RAISES)
            continue
        yield examine(target, asked, seeds)
        if asked is REQUIRED[-1]:
            yield _over_processes(target, processes, timeout, local_rows)


def examine(target: Target, asked: Property, seeds: int) -> Finding:
    """Check one property, and shrink the first batch on which it fails."""
    logger.debug("%s: %s", target.name, asked.name)
    reason = unmet(target, asked.needs)
    if reason is not None:
        return Finding(asked, NOT_APPLICABLE, None, reason)
    batches = 0
    for seed in range(seeds):
        for example in asked.examples(target, seed):
            try:
                fault = _find(target, asked, example)
            except NotHereError as error:
                reason = reason or str(error)
                continue
            batches += 1
            if fault is not None:
                return _failed(target, asked, example, fault, batches)
    if not batches:
        return Finding(asked, NOT_APPLICABLE, None, reason or "there is no such batch")
    remark = "; ".join(dict.fromkeys(text for trait, text in asked.reduced.items() if trait in target.traits))
    return Finding(asked, PASS if asked.required else NOTE, True, remark, batches)


def _find(target: Target, asked: Property, example: Example) -> Fault | None:
    try:
        return asked.check(target, example)
    except CallError as error:
        return Fault("raised", str(error))


def _failed(target: Target, asked: Property, example: Example, fault: Fault, batches: int) -> Finding:
    """Return the finding that a property does not hold, or why it is not applicable to this rule."""
    for trait, why in asked.excused.items():
        if trait in target.traits:
            return Finding(asked, NOT_APPLICABLE, None, f"declared {trait}: {why}", batches)
    if not asked.required:
        if fault.kind == "raised":
            return Finding(asked, NOT_APPLICABLE, None, f"it raises: {fault.what}", batches)
        return Finding(asked, NOTE, False, "", batches, example, fault)

    def find(smaller: Example) -> Fault | None:
        try:
            return _find(target, asked, smaller)
        except NotHereError:
            return None

    example, fault = shrink_example(example, fault, find, blocks=target.blocks)
    return Finding(asked, FAIL, False, "", batches, example, fault)


def _ever_answers(target: Target, seeds: int) -> bool:
    """Return whether the function returns an answer for any ordinary batch."""
    for seed in range(seeds):
        for example in OUTPUT.examples(target, seed):
            try:
                target.answer(example)
            except CallError:
                continue
            return True
    return False


def _over_processes(target: Target, processes: int, timeout: float, local_rows: bool) -> Finding:
    if processes < 2:
        return Finding(PROCESSES, NOT_APPLICABLE, None, "only one process was requested")
    try:
        outcome = compare_processes(target, processes, timeout, local_rows=local_rows)
    except NotHereError as error:
        return Finding(PROCESSES, NOT_APPLICABLE, None, str(error))
    if outcome.fault is not None:
        return Finding(PROCESSES, FAIL, False, "", outcome.batches, outcome.example, outcome.fault)
    return Finding(PROCESSES, PASS, True, outcome.remark, outcome.batches)
