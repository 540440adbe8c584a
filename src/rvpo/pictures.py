"""Pictures of prompts: read from bytes that nobody vouches for, known by their content, and made small for a page.

Bytes come from data files and from a run's folder, so they may be anything. Pillow opens a few formats of pixels here
and nothing else: no SVG, which may hold scripts, and none of its formats that start other programs. A picture is
measured before it is unpacked, because a small file may unpack to gigabytes. What leaves this module are pixels that
were written anew, or bytes that were decoded whole.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.errors import MissingExtraError
from rvpo.extras import install_command
from rvpo.files import whole

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read."""

MAX_BYTES = 50_000_000
"""Size of a file that is looked at."""

MAX_PIXELS = 50_000_000
"""Width times height of a picture that is unpacked: 150 MB of memory."""

FOLDER = "pictures"
"""Where a run's folder keeps the pictures of its prompts, ``{digest}.png`` or ``.jpg``, each once."""

RECORDED_SIDE = 512
"""Pixels of the longest side of a recorded picture, enough to read the letters of a figure."""

MAX_RECORDED = 20_000
"""Pictures that a run's folder keeps."""

PLACEHOLDER = "<image>"
"""Where a picture stands in the text of a prompt, as in verl's data."""

_KEPT = ("PNG", "JPEG", "WEBP")  # formats whose bytes are passed on as they are
_MAGIC = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|RIFF....WEBP|GIF8[79]a|BM....\0\0\0\0|II\*\0|MM\0\*", re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RECORDED_BYTES = 1_000_000  # a picture of RECORDED_SIDE is never larger


class NotAPictureError(ValueError):
    """Bytes are not a picture that can be shown to a model. Its text says what was seen."""


def looks_like_picture(data: object) -> bool:
    """Return whether bytes begin as a file of one of :data:`FORMATS`."""
    return isinstance(data, bytes) and _MAGIC.match(data) is not None


def decode(data: bytes) -> Image:
    """Return a picture, upright, in RGB; transparent places are white, as on a page.

    Raises:
        NotAPictureError: the bytes are of none of :data:`FORMATS`, damaged, too large, or several frames.
        MissingExtraError: Pillow is not installed.
    """
    return _decoded(data)[0]


def checked_bytes(data: bytes) -> bytes:
    """Return the bytes of a picture that every reader understands alike: RGB, upright, without transparency.

    Most are the bytes that came in. Others (a palette, transparency, a rotation in the metadata) are written anew as
    PNG: a line drawing on a transparent ground would be black on black for a reader that drops the transparency.

    Raises:
        NotAPictureError, MissingExtraError: see :func:`decode`.
    """
    image, unchanged = _decoded(data)
    return data if unchanged else _encoded(image, "PNG")


def digest(image: Image) -> str:
    """Return what a picture is known by: SHA-256 over its size and its pixels in RGB, 64 hexadecimal digits."""
    plain = image if image.mode == "RGB" else _plain(image)
    told = hashlib.sha256(f"{plain.width}x{plain.height}:".encode())
    told.update(plain.tobytes())
    return told.hexdigest()


def record(image: Image, folder: Path) -> str:
    """Keep a small copy of a picture in a folder, once, and return its digest.

    Nothing is written where the folder has :data:`MAX_RECORDED` pictures already. A reader without the file still
    knows by the digest which prompts had the same picture.
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


def is_digest(name: object) -> bool:
    """Return whether a value is what :func:`digest` gives."""
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None


def recorded_path(folder: Path, name: object) -> Path | None:
    """Return the file of a recorded picture; None where there is none, or the name is not a digest."""
    if not is_digest(name):  # it comes from a file and becomes a path
        return None
    paths = (folder / f"{name}.{end}" for end in ("png", "jpg"))
    return next((path for path in paths if path.is_file() and not path.is_symlink()), None)


def data_uri(path: Path, side: int, most: int) -> str | None:
    """Return a picture as a ``data:`` address for a page, its pixels written anew.

    Args:
        path: file of the picture. It may have been replaced by anything.
        side: pixels of the longest side at most.
        most: characters of the address at most.

    Returns:
        None where the file is not a picture, or stays too large.
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
    """Return a picture as :func:`decode` does, and whether its bytes say the same to every reader."""
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
        raise NotAPictureError(_told(data, error)) from None


_ORIENTATION = 0x0112  # of EXIF


def _told(data: bytes, error: Exception) -> str:
    if not data:
        return "no bytes"
    if looks_like_picture(data):
        return f"a damaged picture ({str(error)[:80] or type(error).__name__})"
    return f"bytes that begin with {data[:12]!r}, which is none of {', '.join(FORMATS)}"


def _plain(image: Image) -> Image:
    """Return a picture in RGB on white ground, always a copy.

    Raises:
        NotAPictureError: pixels of a kind whose white and black nobody knows.
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
    """Return Pillow's modules of pictures and of operations.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError(
            f"{error}; prompts with pictures need the extra pictures: {install_command('pictures')}"
        ) from error
    return Image, ImageOps
