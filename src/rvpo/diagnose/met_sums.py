"""Count unexplored and suppressed groups over a run. Only its end shows whether a channel is binary or graded.

:mod:`rvpo.core.met` defines these groups, and the threshold from which on a completion meets a channel. Logs are read
once, so both kinds of thresholds are counted for each channel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from rvpo.arrays.groups import Array, Ints, Partition
from rvpo.arrays.met import ends_of, group_counters
from rvpo.arrays.rules import Shares
from rvpo.core.channels import Range
from rvpo.core.met import Few, binary_line, graded_line, next_few

SlotOf = Mapping[str, int]

COUNTED = ("met_groups", "unexplored", "suppressed", "unexplored_binary", "suppressed_binary")
"""The slots of :data:`rvpo.diagnose.group_sums.SLOTS` that this module counts."""


def met_sums(result: Shares, groups: Partition, advantages: Array, graded: Array, binary: Array) -> dict[str, Array]:
    """Return which groups are unexplored and suppressed on each column, (P, M), by both kinds of thresholds.

    Groups with an unknown advantage (NaN) are not counted. Only the end of a run shows whether a channel is binary:
    :meth:`MetLines.settle` chooses then.

    Args:
        result: rewards of the batch, (N, M).
        groups: the partition of its rows.
        advantages: (N,) advantages that the run used.
        graded: (M,) or (N, M) thresholds from :func:`rvpo.core.met.graded_line`, with [0, 1] if no range is declared.
        binary: the same from :func:`rvpo.core.met.binary_line`.
    """
    rewards = np.where(result.applies, result.rewards, np.nan)
    known = groups.sum(np.isnan(advantages)[:, None]) == 0
    found = {"met_groups": (groups.sum(~np.isnan(rewards)) > 0) & known}
    for suffix, lines in (("", graded), ("_binary", binary)):
        _, unexplored, suppressed = group_counters(rewards, advantages, groups, lines)
        found |= {f"unexplored{suffix}": unexplored & known, f"suppressed{suffix}": suppressed & known}
    return {name: x.astype(np.float64) for name, x in found.items()}


class MetLines:
    """Follows the values of the channels of a run, which determine the thresholds for meeting them.

    Attributes:
        few: name -> the values that were seen, see :data:`rvpo.core.met.Few`.
    """

    def __init__(self, few: Mapping[str, Few] | None = None) -> None:
        """Begin, or continue from ``few``."""
        self.few: dict[str, Few] = dict(few or {})

    def look(
        self, result: Shares, channel: Ints, names: Sequence[str], ranges: Sequence[Range | None]
    ) -> tuple[Array, Array, list[str]]:
        """Add a batch; return graded and binary thresholds of its cells.

        Args:
            result: rewards of the batch, (N, M).
            channel: (M,) or (N, M), index of the channel of each cell.
            names: names of the K channels.
            ranges: their declared ranges.

        Returns:
            The thresholds, and the channels that had a single value and now have a second, higher value. If these
            channels turn out to be binary, no completion so far meets them.
        """
        raised = []
        ends = ends_of(result.rewards, channel, result.applies, len(names))
        for j in np.flatnonzero(ends.occurs).tolist():
            name = names[j]
            before = self.few.get(name, [])
            now = self.few[name] = next_few(before, float(ends.low[j]), float(ends.high[j]), bool(ends.between[j]))
            if before is not None and len(before) == 1 and now is not None and len(now) == 2 and now[0] == before[0]:
                raised.append(name)
        graded = np.array([graded_line(declared, 0.0, 1.0) for declared in ranges])
        binary = np.array([binary_line(self.few.get(name, [])) for name in names])
        return graded[channel], binary[channel], raised

    def forget(self, kept: Collection[str]) -> None:
        """Forget all channels but these."""
        self.few = {name: few for name, few in self.few.items() if name in kept}

    def settle(
        self, table: Array, names: Sequence[str], ranges: Sequence[Range | None], low: Array, top: Array, slot: SlotOf
    ) -> None:
        """Choose between both kinds of thresholds, in place. The results are in the slots without a suffix.

        Args:
            table: (…, K, slots) sums of groups.
            names: names of the K channels.
            ranges: their declared ranges.
            low: (K,) lowest reward seen.
            top: (K,) highest reward seen.
            slot: name of a slot -> its index in ``table``.
        """
        for j, name in enumerate(names):
            if ranges[j] is None and not np.isnan(binary_line(self.few.get(name, []))):
                for kind in ("unexplored", "suppressed"):
                    table[..., j, slot[kind]] = table[..., j, slot[f"{kind}_binary"]]
            elif np.isnan(graded_line(ranges[j], low[j], top[j])):
                table[..., j, slot["met_groups"]] = 0
