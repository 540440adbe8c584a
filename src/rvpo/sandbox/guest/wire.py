"""Frames over pipes: four bytes of length, then so many bytes."""

import os

from codec import MAX_BYTES, Malformed


class Closed(Exception):
    """The other side has ended."""


def write(descriptor, data):
    """Write one frame; Closed where nobody reads."""
    view = memoryview(len(data).to_bytes(4, "big") + data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        raise Closed from None


def read(descriptor, most=MAX_BYTES):
    """Return the next frame, and not a byte more than it is taken off the pipe."""
    length = int.from_bytes(_exactly(descriptor, 4), "big")
    if length > most:
        raise Malformed("too long")
    return _exactly(descriptor, length)


def _exactly(descriptor, length):
    parts = []
    while length:
        try:
            part = os.read(descriptor, min(length, 1 << 20))
        except OSError:
            raise Closed from None
        if not part:
            raise Closed
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
