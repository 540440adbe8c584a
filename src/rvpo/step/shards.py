"""The ranks of a process group as one batch: each rank has whole groups, and ranks exchange only sums.

Every exchange begins with one packet of fixed length, an all-reduce of ``PACKET`` numbers in double precision::

    failed ranks | ranks | length of the exchange, as a sum and as a sum of squares | the first numbers

So a rank that has raised an error can still send a packet, no matter what the others are about to exchange. Then all
ranks raise, and no rank waits for ever. Numbers that do not fit into the packet follow in a second all-reduce, and
largest values in a third.

Sums are computed in double precision. The result of an all-reduce is the same on all ranks, to the last bit, and so is
everything that is computed from it. Text is sent as JSON and is never unpickled.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rvpo import errors
from rvpo.core.groups import Groups
from rvpo.core.shards import Parts, Whole
from rvpo.errors import ConfigError, RewardError, RVPOError

PACKET = 256
"""Number of values in the packet with which every exchange begins."""
HEAD = 4
"""Number of values at the start of a packet that describe it."""
BITS = 20
"""Bits of a hash. Its square is summed, too, so it must be small: sums over thousands of ranks stay exact."""
SHOWN = 300
"""Number of characters of another rank's value that a message shows."""


class _OfAllError(Exception):
    """Carries an error that every rank raises, so it need not be sent to the other ranks."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Shards(Whole):
    """The ranks of a process group.

    Attributes:
        rank: number of this process in the group, from 0 on.
        ranks: number of processes in the group.
        bytes: how many bytes this process has handed to the group so far, in all exchanges.
        exchanges: number of collective operations so far.
    """

    is_whole = False

    def __init__(self, process_group: Any) -> None:
        """Use a process group.

        Args:
            process_group: a process group of ``torch.distributed``, such as ``torch.distributed.group.WORLD``.

        Raises:
            ConfigError: it is not a process group, or this process is not in it.
        """
        dist = torch.distributed
        if not dist.is_available() or not dist.is_initialized():
            raise ConfigError(
                f"process_group is {process_group!r}, but torch.distributed is not initialized; expected a process "
                "group of this process. Call torch.distributed.init_process_group first, or leave process_group out "
                "if there is one process"
            )
        if not isinstance(process_group, dist.ProcessGroup):
            raise ConfigError(
                f"process_group is {process_group!r}; expected a torch.distributed.ProcessGroup of which this process "
                "is a member. Pass torch.distributed.group.WORLD for all processes"
            )
        self._group = process_group
        self.rank, self.ranks = dist.get_rank(process_group), dist.get_world_size(process_group)
        self._device = _device_of(process_group)
        self.bytes = self.exchanges = 0

    def sum(self, *parts: Tensor) -> Parts:
        """See :meth:`Whole.sum`."""
        return self.combined(parts, ())[0]

    def combined(self, sums: Sequence[Tensor], largest: Sequence[Tensor]) -> tuple[Parts, Parts]:
        """See :meth:`Whole.combined`."""
        added, highest = _flat(sums), _flat(largest)
        size = (31 * len(added) + 17 * len(highest)) % 2**BITS
        packet = torch.zeros(PACKET, dtype=torch.float64)
        packet[:HEAD] = torch.tensor([0, 1, size, size * size])
        room = PACKET - HEAD
        packet[HEAD : HEAD + min(room, len(added))] = added[:room]
        packet = self._reduced(packet)
        self._require_together(packet[:HEAD].tolist())
        total = packet[HEAD : HEAD + len(added)]
        if len(added) > room:
            total = torch.cat([total, self._reduced(added[room:])])
        if len(highest):
            highest = self._reduced(highest, "MAX")
        return _shaped(total, sums), _shaped(highest, largest)

    def joined(self, rows: Tensor) -> tuple[Tensor, slice]:
        """See :meth:`Whole.joined`."""
        whole, lengths = self._joined(rows)
        start = sum(lengths[: self.rank])
        return whole, slice(start, start + len(rows))

    def _joined(self, rows: Tensor) -> tuple[Tensor, list[int]]:
        """Return the rows of all ranks, and how many each has."""
        (counts,) = self.sum(self._at_own_place(len(rows)))
        lengths = [int(count) for count in counts.tolist()]
        padded = rows.detach().to(self._device).new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        gathered = self._gathered(padded) if padded.numel() else [padded] * self.ranks
        whole = torch.cat([part[:n] for part, n in zip(gathered, lengths, strict=True)]).to(rows.device)
        return whole, lengths

    def grouped(self, groups: Groups) -> Groups:
        """See :meth:`Whole.grouped`."""
        (counts,) = self.sum(self._at_own_place(groups.count))
        before = int(counts[: self.rank].sum())
        index, _ = self.joined(groups.index + before)
        return Groups(index, int(counts.sum()))

    def values_of_all(self, value: Any) -> list[Any]:
        """See :meth:`Whole.values_of_all`."""
        text = json.dumps(value).encode()
        every, lengths = self._joined(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        return [json.loads(bytes(part.tolist())) for part in torch.split(every, lengths)]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a step in which all ranks take part in every exchange, or all of them raise.

        Raises:
            RVPOError: any of the ranks raised an error.
        """
        try:
            yield
        except _OfAllError as shared:
            raise shared.error from None
        except Exception as error:
            self._fail(error)
            raise

    def agree(self, values: Mapping[str, str], sums: Sequence[float] = ()) -> list[float]:
        """Require that all ranks have the same values, and return sums over the ranks. Both take one exchange.

        Args:
            values: description -> this rank's value.
            sums: this rank's numbers, to be summed over the ranks.

        Raises:
            ConfigError: ranks have different values; all ranks raise it.
        """
        hashes = [zlib.crc32(value.encode()) % 2**BITS for value in values.values()]
        found, one, two = self.sum(
            torch.tensor(list(sums), dtype=torch.float64),
            torch.tensor(hashes, dtype=torch.float64),
            torch.tensor([h * h for h in hashes], dtype=torch.float64),
        )
        for name, total, squares in zip(values, one.tolist(), two.tolist(), strict=True):
            # Numbers are equal if the mean of their squares is the square of their mean.
            if int(total) ** 2 != self.ranks * int(squares):
                raise _OfAllError(self._different(name, self.values_of_all(values[name][: 20 * SHOWN])))
        return found.tolist()

    def refuse(self, error: RVPOError) -> None:
        """Raise an error that follows from values that all ranks have, so all of them raise it."""
        raise _OfAllError(error)

    def _different(self, name: str, values: Sequence[str]) -> ConfigError:
        other = next((rank for rank, value in enumerate(values) if value != values[0]), 0)
        first, second = _where_different(values[0], values[other])
        return ConfigError(
            f"{name} of rank 0 is {first}, and of rank {other} {second}; expected the same on all ranks. "
            "Build the Aggregators alike, call them with the same progress and learn, and load the same state"
        )

    def _fail(self, error: Exception) -> None:
        """Send the error that was raised here to the other ranks, which receive it in their next exchange."""
        packet = torch.zeros(PACKET, dtype=torch.float64)
        packet[0] = packet[1] = 1
        self._reduced(packet)
        self._failures(error)

    def _require_together(self, head: Sequence[float]) -> None:
        """Raise the error of another rank, or an error if the ranks are not in the same exchange."""
        failed, ranks, size, squares = head
        if failed:
            raise _OfAllError(self._failures(None))
        if ranks != self.ranks or int(size) ** 2 != self.ranks * int(squares):
            raise _OfAllError(
                RewardError(
                    f"the {self.ranks} ranks of the process group exchange different things; expected each rank to "
                    "call its Aggregator once per step with its own groups. Call it on all ranks, with the same names, "
                    "and do not share the process group between Aggregators that run at the same time"
                )
            )

    def _failures(self, error: Exception | None) -> Exception:
        """Send the error that was raised here, if any, and return the first error of all ranks."""
        own = [] if error is None else [type(error).__name__, str(error)]
        # Not `values_of_all`: its exchanges would begin with a packet, but every rank already expects the errors here.
        text = json.dumps(own).encode()
        lengths = self._reduced(self._at_own_place(len(text)))
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8, device=self._device)
        padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(self._device)
        gathered = self._gathered(padded)
        for rank, (part, length) in enumerate(zip(gathered, lengths.tolist(), strict=True)):
            if found := json.loads(bytes(part[: int(length)].cpu().tolist())):
                kind = getattr(errors, found[0], None)
                where = f"rank {rank} of {self.ranks}"
                if isinstance(kind, type) and issubclass(kind, RVPOError):
                    return kind(f"{where}: {found[1]}")
                return RewardError(f"{where}: {found[0]}: {found[1]}")
        return RewardError("a rank failed without an error")

    def _reduced(self, x: Tensor, operation: str = "SUM") -> Tensor:
        """Return an all-reduce of numbers in double precision, on the CPU."""
        sent = x.to(self._device, copy=True)
        with self._counted(sent):
            torch.distributed.all_reduce(sent, getattr(torch.distributed.ReduceOp, operation), group=self._group)
        return sent.cpu()

    def _gathered(self, padded: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, which have the same shape."""
        every = [torch.empty_like(padded) for _ in range(self.ranks)]
        with self._counted(padded):
            torch.distributed.all_gather(every, padded, group=self._group)
        return every

    @contextmanager
    def _counted(self, sent: Tensor) -> Iterator[None]:
        """Count an exchange. If the group itself fails, such as by a timeout, the other ranks cannot be informed."""
        self.bytes += sent.numel() * sent.element_size()
        self.exchanges += 1
        try:
            yield
        except Exception as error:
            raise _OfAllError(error) from error

    def _at_own_place(self, number: int) -> Tensor:
        """Return a vector with one entry per rank: ours is the number, all others are 0."""
        places = torch.zeros(self.ranks, dtype=torch.float64)
        places[self.rank] = number
        return places


def _device_of(process_group: Any) -> torch.device:
    """Return the device on which a process group expects its tensors."""
    backends = str(torch.distributed.get_backend_config(process_group))
    if "cpu:" in backends or "gloo" in backends or "mpi" in backends:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """Return all numbers in one vector in double precision, on the CPU."""
    if not parts:
        return torch.zeros(0, dtype=torch.float64)
    return torch.cat([part.detach().cpu().double().flatten() for part in parts])


def _shaped(flat: Tensor, like: Sequence[Tensor]) -> Parts:
    """Undo :func:`_flat`."""
    parts = torch.split(flat, [part.numel() for part in like]) if like else ()
    return tuple(x.view(part.shape).to(part.device, part.dtype) for x, part in zip(parts, like, strict=True))


def _where_different(one: str, other: str) -> tuple[str, str]:
    """Return the parts of two texts that begin where they differ."""
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, start - 60) if max(len(one), len(other)) > SHOWN else 0
    return one[start : start + SHOWN] or "nothing", other[start : start + SHOWN] or "nothing"
