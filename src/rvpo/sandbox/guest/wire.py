"""Frames over pipes: four bytes with the length, then the data."""

from __future__ import annotations

import os

from .codec import MAX_BYTES, MalformedError


class ClosedError(Exception):
    """The other side has ended."""


def write(descriptor: int, data: bytes) -> None:
    """Write one frame. Raises ClosedError if the other side has ended."""
    view = memoryview(len(data).to_bytes(4, "big") + data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        raise ClosedError from None


def read(descriptor: int, most: int = MAX_BYTES) -> bytes:
    """Return the next frame. Not a byte more is taken from the pipe."""
    length = int.from_bytes(_exactly(descriptor, 4), "big")
    if length > most:
        raise MalformedError("too long")
    return _exactly(descriptor, length)


def _exactly(descriptor: int, length: int) -> bytes:
    parts = []
    while length:
        try:
            part = os.read(descriptor, min(length, 1 << 20))
        except OSError:
            raise ClosedError from None
        if not part:
            raise ClosedError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
