"""The report as text, and as plain data for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rvpo.conformance.suite import FAIL, NOT_APPLICABLE, NOTE, RAISES, Finding, Report
from rvpo.conformance.target import TRAITS, Example


def report_as_text(report: Report) -> str:
    """Return the table, then each failure with its smallest batch."""
    lines = [f"checked: {report.target.name}"]
    lines += [f"called as: {report.target.called}"] if report.target.called else []
    lines += [f"declared {trait}: {TRAITS[trait]}" for trait in sorted(report.target.traits)]
    name = max(len(finding.asked.name) for finding in report.findings)
    lines.append("")
    unasked = [finding for finding in report.findings if finding.remark == RAISES]
    for finding in report.findings:
        if finding not in unasked:
            lines.append(f"{finding.status:<4}  {finding.asked.name:<{name}}  {_said(finding)}")
    if unasked:
        lines.append(f"{NOT_APPLICABLE:<4}  the other {len(unasked)} properties ({RAISES})")
    for finding in report.failures:
        lines += ["", *_failure(finding, report.target.by_tokens)]
    applicable = [f for f in report.findings if f.asked.required and f.status != NOT_APPLICABLE]
    count = f"{len(applicable) - len(report.failures)} of {len(applicable)} required properties hold"
    skipped = sum(f.asked.required and f.status == NOT_APPLICABLE for f in report.findings)
    lines += ["", count + (f", {skipped} not applicable" if skipped else "")]
    return "\n".join(lines)


def as_data(report: Report) -> dict[str, Any]:
    """Return plain data; numbers that are not finite are None."""
    return {
        "function": report.target.name,
        "passed": report.passed,
        "traits": sorted(report.target.traits),
        "properties": [
            {
                "name": finding.asked.name,
                "statement": finding.asked.statement,
                "required": finding.asked.required,
                "status": finding.status,
                "holds": finding.holds,
                "remark": finding.remark,
                "batches": finding.batches,
                "failure": _failure_data(finding),
            }
            for finding in report.findings
        ],
    }


def _said(finding: Finding) -> str:
    statement = finding.asked.statement
    if finding.status == NOTE:
        statement = f"{'yes' if finding.holds else 'no '}: {statement}"
    return statement + (f" ({finding.remark})" if finding.remark else "")


def _failure(finding: Finding, by_tokens: bool) -> Iterator[str]:
    fault, example = finding.fault, finding.example
    assert fault is not None
    assert example is not None
    yield f"{FAIL}  {finding.asked.name}: {finding.asked.statement}"
    yield f"      so that {finding.asked.consequence}"
    yield f"      {fault.what}"
    if fault.changed is not None:
        yield "      before:"
        yield from _table(example, None, None, by_tokens)
        yield "      after:"
        yield from _table(fault.changed, fault.got, fault.expected, by_tokens)
    else:
        yield from _table(example, fault.got, fault.expected, by_tokens)


def _table(example: Example, got: Tensor | None, expected: Tensor | None, by_tokens: bool) -> Iterator[str]:
    """Yield a table of a batch: one row per completion with its rewards, its group and its advantage."""
    head = ["row", "group"]
    columns: list[list[str]] = [[str(i) for i in range(len(example.groups))], [str(i) for i in example.groups.tolist()]]
    if by_tokens:
        head.append("length")
        columns.append([str(i) for i in example.lengths.tolist()])
    for j, channel in enumerate(example.rewards.unbind(1)):
        head.append(f"reward {j}")
        columns.append([_shortest(x) for x in channel])
    for what, values in (("got", got), ("expected", expected)):
        if values is not None:
            head.append(what)
            columns.append([f"{x:.4g}" for x in values.tolist()])
    widths = [max(len(name), *map(len, column)) for name, column in zip(head, columns, strict=True)]
    yield "        " + "  ".join(f"{name:>{width}}" for name, width in zip(head, widths, strict=True))
    for row in zip(*columns, strict=True):
        yield "        " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))


def _shortest(x: Tensor) -> str:
    """Return the fewest digits that identify this number in its type: 0.1 and not 0.10000000149."""
    if math.isnan(float(x)):
        return "missing"
    texts = (f"{float(x):.{digits}g}" for digits in range(1, 18))
    return next(text for text in texts if bool(torch.tensor(float(text), dtype=x.dtype) == x))


def _failure_data(finding: Finding) -> dict[str, Any] | None:
    fault, example = finding.fault, finding.example
    if fault is None or example is None:
        return None
    return {
        "what": fault.what,
        "kind": fault.kind,
        "consequence": finding.asked.consequence,
        "example": _example_data(example),
        "changed": None if fault.changed is None else _example_data(fault.changed),
        "got": _finite(fault.got),
        "expected": _finite(fault.expected),
    }


def _example_data(example: Example) -> dict[str, Any]:
    return {
        "rewards": [[_plain(x) for x in row] for row in example.rewards.tolist()],
        "dtype": str(example.rewards.dtype).removeprefix("torch."),
        "groups": example.groups.tolist(),
        "lengths": example.lengths.tolist(),
        "pad": example.pad,
        "k": example.k,
    }


def _finite(x: Tensor | None) -> list[float | None] | None:
    return None if x is None else [_plain(value) for value in x.tolist()]


def _plain(x: float) -> float | None:
    return x if math.isfinite(x) else None
