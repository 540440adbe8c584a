"""Pictures of prompts: read from untrusted bytes, identified by their content, and reduced for a page.

Bytes come from data files and from a run's folder, so they may be anything. Pillow may open only a few pixel formats
here: not SVG, which may contain scripts, and no format for which Pillow starts other programs. The size of a picture is
checked before it is unpacked, because a small file may unpack to gigabytes. This module returns only pixels that it has
encoded again, or bytes that it has decoded completely.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.errors import MissingExtraError
from rvpo.extras import install_command
from rvpo.files import whole

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are read."""

MAX_BYTES = 50_000_000
"""Largest size of a file that is read, in bytes."""

MAX_PIXELS = 50_000_000
"""Largest width times height of a picture that is unpacked: 150 MB of memory."""

FOLDER = "pictures"
"""Subfolder of a run's folder with the pictures of its prompts, ``{digest}.png`` or ``.jpg``, each once."""

RECORDED_SIDE = 512
"""Longest side of a recorded picture in pixels, enough to read the letters of a figure."""

MAX_RECORDED = 20_000
"""Largest number of pictures that a run's folder keeps."""

PLACEHOLDER = "<image>"
"""Mark of a picture in the text of a prompt, as in verl's data."""

_KEPT = ("PNG", "JPEG", "WEBP")  # formats whose bytes are returned unchanged
_MAGIC = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|RIFF....WEBP|GIF8[79]a|BM....\0\0\0\0|II\*\0|MM\0\*", re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RECORDED_BYTES = 1_000_000  # a picture of RECORDED_SIDE is never larger


class NotAPictureError(ValueError):
    """Bytes are not a picture that can be shown to a model. The message says what was seen."""


def looks_like_picture(data: object) -> bool:
    """Return whether bytes begin like a file of one of :data:`FORMATS`."""
    return isinstance(data, bytes) and _MAGIC.match(data) is not None


def decode(data: bytes) -> Image:
    """Return an upright picture in RGB. Transparent pixels become white, as on a page.

    Raises:
        NotAPictureError: the bytes have none of :data:`FORMATS`, are damaged or too large, or have several frames.
        MissingExtraError: Pillow is not installed.
    """
    return _decoded(data)[0]


def checked_bytes(data: bytes) -> bytes:
    """Return the bytes of a picture that all readers show in the same way: RGB, upright, without transparency.

    Most bytes are returned unchanged. Pictures with a palette, transparency, or a rotation in the metadata are encoded
    again as PNG: a drawing on a transparent background would be black on black for a reader that ignores transparency.

    Raises:
        NotAPictureError, MissingExtraError: see :func:`decode`.
    """
    image, unchanged = _decoded(data)
    return data if unchanged else _encoded(image, "PNG")


def digest(image: Image) -> str:
    """Return the key of a picture: SHA-256 of its size and its RGB pixels, 64 hexadecimal digits."""
    plain = image if image.mode == "RGB" else _plain(image)
    hashed = hashlib.sha256(f"{plain.width}x{plain.height}:".encode())
    hashed.update(plain.tobytes())
    return hashed.hexdigest()


def record(image: Image, folder: Path) -> str:
    """Store a small copy of a picture in a folder, once, and return its digest.

    If the folder already has :data:`MAX_RECORDED` pictures, nothing is written. The digest still shows a reader which
    prompts had the same picture.
    """
    name = digest(image)
    path = folder / f"{name}.jpg"
    if path.exists() or path.with_suffix(".png").exists():
        return name
    if folder.is_dir() and sum(1 for _ in folder.iterdir()) >= MAX_RECORDED:
        return name
    small = _plain(image)
    small.thumbnail((RECORDED_SIDE, RECORDED_SIDE))
    as_png, as_jpeg = _encoded(small, "PNG"), _encoded(small, "JPEG")
    if len(as_png) <= 2 * len(as_jpeg):  # drawings stay sharp; photographs are several times as large
        path, content = path.with_suffix(".png"), as_png
    else:
        content = as_jpeg
    with suppress(FileNotFoundError), whole(path) as partial:  # another process may write the same one
        partial.write_bytes(content)
    return name


def recorded(picture: object, folder: Path) -> str | None:
    """Store what an engine gives as a picture, as :func:`record` does; None if it is not a Pillow image."""
    from PIL import Image

    if not isinstance(picture, Image.Image):
        return None
    try:
        return record(picture, folder)
    except NotAPictureError:
        return None


def in_messages(messages: object) -> list[Any]:
    """Return the pictures in the parts of chat messages, in order."""
    given = messages if isinstance(messages, list | tuple) else []
    contents = [message.get("content") for message in given if isinstance(message, Mapping)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [part["image"] for part in parts if isinstance(part, Mapping) and part.get("image") is not None]


def is_digest(name: object) -> bool:
    """Return whether a value has the form of a result of :func:`digest`."""
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None


def recorded_path(folder: Path, name: object) -> Path | None:
    """Return the file of a recorded picture; None if it does not exist, or if the name is not a digest."""
    if not is_digest(name):  # the name comes from a file and becomes a path
        return None
    paths = (folder / f"{name}.{end}" for end in ("png", "jpg"))
    return next((path for path in paths if path.is_file() and not path.is_symlink()), None)


def data_uri(path: Path, side: int, most: int) -> str | None:
    """Return a picture as a ``data:`` URI for a page, with newly encoded pixels.

    Args:
        path: file of the picture. It is not trusted.
        side: largest length of the longest side, in pixels.
        most: largest number of characters of the URI.

    Returns:
        The URI, or None if the file is not a picture or stays too large.
    """
    try:
        if path.stat().st_size > _RECORDED_BYTES:
            return None
        image = decode(path.read_bytes())
    except (OSError, NotAPictureError, MissingExtraError):
        return None
    image.thumbnail((side, side))
    for kind, name in (("PNG", "png"), ("JPEG", "jpeg")):
        address = f"data:image/{name};base64,{base64.b64encode(_encoded(image, kind)).decode('ascii')}"
        if len(address) <= most:
            return address
    return None


def _decoded(data: bytes) -> tuple[Image, bool]:
    """Return a picture as :func:`decode` does, and whether all readers show its bytes in the same way."""
    pil, operations = _pillow()
    if len(data) > MAX_BYTES:
        raise NotAPictureError(f"{len(data):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        image = pil.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise NotAPictureError(
                f"a picture of {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are unpacked"
            )
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise NotAPictureError(f"a {image.format} of several frames, of which a model would see one")
        kind, rotated = image.format, image.getexif().get(_ORIENTATION, 1) not in (None, 1)
        image.load()
        upright = operations.exif_transpose(image) if rotated else image
        unchanged = kind in _KEPT and not rotated and upright.mode == "RGB" and not upright.has_transparency_data
        return _plain(upright), unchanged
    except NotAPictureError:
        raise
    except pil.DecompressionBombError:
        raise NotAPictureError(f"a picture of more pixels than the {MAX_PIXELS:,} that are unpacked") from None
    except Exception as error:  # decoders raise errors of many families on damaged input
        raise NotAPictureError(_problem(data, error)) from None


_ORIENTATION = 0x0112  # EXIF tag


def _problem(data: bytes, error: Exception) -> str:
    if not data:
        return "no bytes"
    if looks_like_picture(data):
        return f"a damaged picture ({str(error)[:80] or type(error).__name__})"
    return f"bytes that begin with {data[:12]!r}, which is not one of {', '.join(FORMATS)}"


def _plain(image: Image) -> Image:
    """Return a copy of a picture in RGB on a white background.

    Raises:
        NotAPictureError: the pixel format does not define white and black.
    """
    pil, _ = _pillow()
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in ("I", "F"):
        raise NotAPictureError(f"pixels of the mode {image.mode!r}, whose brightest value is not known")
    if not image.has_transparency_data:
        return image.copy() if image.mode == "RGB" else image.convert("RGB")
    full = image.convert("RGBA")
    ground = pil.new("RGB", image.size, "white")
    ground.paste(full, mask=full.getchannel("A"))
    return ground  # type: ignore[no-any-return]


def _encoded(image: Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": False}))
    return out.getvalue()


def _pillow() -> tuple[Any, Any]:
    """Return Pillow's modules ``Image`` and ``ImageOps``.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError(
            f"{error}; prompts with pictures need the extra pictures: {install_command('pictures')}"
        ) from error
    return Image, ImageOps
