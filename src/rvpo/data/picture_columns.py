"""Pictures of prompts: the column that contains them, and the position of each picture in the prompt.

While rows are read and checked, a prompt is text (or chat messages with text), and every picture is a
:data:`~rvpo.pictures.PLACEHOLDER` in it, as in verl's data. :func:`in_parts` then turns all messages into parts
``{"type": "image"}`` and ``{"type": "text", "text": …}``, the form for processors of vision-language models and for
TRL. The pictures themselves are in the column :data:`IMAGES`, one list per row, in the order of their positions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rvpo.data.records import Place, Row, shorten, source_error
from rvpo.pictures import MAX_BYTES, PLACEHOLDER, NotAPictureError, checked_bytes, looks_like_picture

IMAGES = "images"
"""Name of the column in the result, and the first name under which ``auto`` looks for pictures."""

AUTO, NONE = "auto", "none"
"""Values of the option ``image_column`` that are not names of columns."""

NAMES = (IMAGES, "image")
OPTION = "image_column"
TEXT_ONLY = f"or set {OPTION}: {NONE} if the prompts are whole without pictures"
_NUMBER = re.compile(r"[ _.-]*\d+$")
_ROLES = ("user", "assistant")  # roles whose messages may have pictures
_PARTS = ("image", "image_url", "input_image")
_SOUND = re.compile(rb"RIFF....WAVE|ID3|\xff[\xf2\xf3\xfa\xfb]|fLaC|OggS|....ftypM4A", re.DOTALL)
_VIDEO = re.compile(rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", re.DOTALL)
_SOUND_FILE = re.compile(r"\S+\.(wav|mp3|flac|ogg|opus|m4a|aac)", re.IGNORECASE)
_VIDEO_FILE = re.compile(r"\S+\.(mp4|mov|mkv|webm|avi)", re.IGNORECASE)


def find_pictures(rows: Sequence[tuple[Place, Row]], chosen: str) -> str | None:
    """Return the column with the pictures of the prompts; None without such a column.

    Args:
        rows: rows with their places.
        chosen: option ``image_column``: a column, ``auto`` or ``none``.

    Raises:
        DataError: the chosen column does not exist, or two columns may be meant.
    """
    if chosen == NONE:
        return None
    filled = dict.fromkeys(name for _, row in rows for name, value in row.items() if value not in (None, [], ""))
    if chosen != AUTO:
        if chosen not in filled:
            place, row = rows[0]
            raise place.error(chosen, f"no pictures (the row has {shorten(sorted(row))})", "a column", f"set {OPTION}")
        return chosen
    found = [name for name in NAMES if name in filled]
    if len(found) > 1:
        raise rows[0][0].error(IMAGES, f"both columns {found}", "one column with pictures", f"set {OPTION} to one")
    return found[0] if found else None


def with_placeholders(place: Place, prompt: Any, found: list[Any]) -> Any:
    """Return a prompt with a placeholder in place of each part that is a picture. The pictures are added to ``found``.

    Prompts of other forms are returned unchanged: the later check of the record refuses them.

    Raises:
        DataError: a part is neither text nor a picture.
    """
    if not isinstance(prompt, list) or not any(_has_parts(message) for message in prompt):
        return prompt
    return [
        {**message, "content": _joined(place, i, message["content"], found)} if _has_parts(message) else message
        for i, message in enumerate(prompt)
    ]


def read_pictures(place: Place, row: Row, column: str | None, inline: Sequence[Any], trusted: bool) -> list[bytes]:
    """Return the checked bytes of a row's pictures, in order.

    Args:
        place: place of the row, for messages.
        row: row of the file.
        column: column with a picture or a list of pictures; None if all pictures are parts of the prompt.
        inline: pictures in the parts of the prompt; None for a part whose picture is in the column.
        trusted: whether paths come from a library (``datasets``) rather than from the file.

    Raises:
        DataError: a picture is absent, damaged, too large or not on this machine, or both the column and the parts
            contain pictures.
    """
    given = None if column is None else row.get(column)
    values = given if isinstance(given, list | tuple) else [] if given in (None, "") else [given]
    own = [value for value in inline if value is not None]
    label = column or "prompt"
    if own and (values or len(own) < len(inline)):
        seen = f"{len(own)} pictures in the prompt's parts and {len(values)} in the column {column!r}"
        raise place.error(label, seen, "pictures in only one of the two", f"remove one of them, {TEXT_ONLY}")
    values = own or list(values)
    if not values:
        next_step = f"leave out rows without a picture, or load them from a separate file with {OPTION}: {NONE}"
        raise place.error(label, "no picture", "at least one, as in other rows", next_step)
    return [_checked(place, f"{label}[{i}]", value, trusted) for i, value in enumerate(values)]


def placed(place: Place, label: str, prompt: Any, count: int) -> Any:
    """Return a prompt with one placeholder per picture. Without any, they are put before the first text of the user.

    Args:
        place: place of the row, for messages.
        label: column of the prompt, for messages.
        prompt: text, or chat messages with text.
        count: number of pictures.

    Raises:
        DataError: the prompt has another number of placeholders, or has one in a message that cannot have pictures.
    """
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(chat, list) or not all(
        isinstance(m, Mapping) and isinstance(m.get("content"), str) for m in chat
    ):
        return prompt
    places = [message["content"].count(PLACEHOLDER) for message in chat]
    for message, here in zip(chat, places, strict=True):
        role = message.get("role")
        if here and role not in _ROLES:
            seen = f"a picture in a message of the role {role!r}"
            raise place.error(label, seen, f"pictures of the roles {' and '.join(_ROLES)}", "move it")
        if role == "developer":
            raise place.error(label, "pictures and the role 'developer'", "the role 'system'", "rename the role")
    if sum(places) == count:
        return chat
    if sum(places):
        seen = f"{sum(places)} placeholders {PLACEHOLDER} and {count} pictures"
        raise place.error(
            label, seen, f"one {PLACEHOLDER} per picture, or none at all", f"correct the row, {TEXT_ONLY}"
        )
    first = next((i for i, message in enumerate(chat) if message.get("role") == "user"), None)
    if first is None:
        raise place.error(label, "no message of the user", "one to put the pictures into", "add it")
    return [
        {**message, "content": PLACEHOLDER * count + message["content"]} if i == first else message
        for i, message in enumerate(chat)
    ]


def in_parts(prompt: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return chat messages whose contents are lists of parts, the form for processors of vision-language models.

    Example:
        >>> in_parts([{"role": "user", "content": "<image>What is this?"}])[0]["content"]
        [{'type': 'image', 'text': ''}, {'type': 'text', 'text': 'What is this?'}]
    """
    return [{"role": message["role"], "content": _split(message["content"])} for message in prompt]


def as_text(prompt: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return chat messages with text and placeholders: the inverse of :func:`in_parts`."""
    return [
        {
            "role": message["role"],
            "content": "".join(
                PLACEHOLDER if part["type"] == "image" else part["text"] or "" for part in message["content"]
            ),
        }
        for message in prompt
    ]


def key_of(record: Row) -> Any:
    """Return a key that identifies the prompt of a record. Prompts with equal texts but other pictures differ."""
    if IMAGES not in record:
        return record["prompt"]
    return [record["prompt"], [hashlib.sha256(data).hexdigest() for data in record[IMAGES]]]


def check_absent(rows: Sequence[tuple[Place, Row]], prompts: Sequence[Any], label: str, chosen: str) -> None:
    """Refuse prompts that ask about pictures if no pictures are read.

    Args:
        rows: rows with their places.
        prompts: prompt of each row.
        label: column of the prompt, for messages.
        chosen: option ``image_column``.

    Raises:
        DataError: most prompts have a placeholder, and the file has no column with pictures.
    """
    if chosen != AUTO:
        return
    without = [i for i, prompt in enumerate(prompts) if PLACEHOLDER in _text_of(prompt)]
    if rows and 2 * len(without) > len(rows):
        place, row = rows[without[0]]
        seen = (
            f"{PLACEHOLDER} in {len(without)} of {len(rows)} prompts, and no pictures (columns {shorten(sorted(row))})"
        )
        expected = f"pictures in a column {NAMES[0]!r} or {NAMES[1]!r}"
        raise place.error(label, seen, expected, f"name their column with {OPTION}, {TEXT_ONLY}")


# --- parts ------------------------------------------------------------------------------------------------------------


def _has_parts(message: Any) -> bool:
    """Return whether a message has pictures among its parts. Messages with only parts of text are joined elsewhere."""
    parts = message.get("content") if isinstance(message, Mapping) else None
    return isinstance(parts, list) and any(isinstance(part, Mapping) and part.get("type") in _PARTS for part in parts)


def _joined(place: Place, number: int, parts: list[Any], found: list[Any]) -> str:
    texts = []
    for i, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _PARTS:
            held = next((part[key] for key in ("image", "image_url", "url", "path") if part.get(key)), None)
            found.append(held.get("url", held) if isinstance(held, Mapping) else held)
            texts.append(PLACEHOLDER)
        elif kind in ("text", "input_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            where = f"messages[{number}].content[{i}]"
            raise place.error(where, shorten(part), "a part with text or a picture", "remove the part")
    return "".join(texts)


def _split(content: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for i, text in enumerate(content.split(PLACEHOLDER)):
        if i:
            parts.append({"type": "image", "text": ""})  # "" and not null, because a chat template may print null
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def _text_of(prompt: Any) -> str:
    turns = prompt if isinstance(prompt, list) else [prompt]
    return " ".join(str(turn.get("content") if isinstance(turn, Mapping) else turn) for turn in turns)


# --- bytes ------------------------------------------------------------------------------------------------------------


def _checked(place: Place, label: str, value: Any, trusted: bool) -> bytes:
    """Return the checked bytes of one picture, given as bytes, ``{bytes, path}``, a path, or a ``data:`` URL."""
    data = _bytes_of(place, label, value, trusted)
    try:
        return checked_bytes(data)
    except NotAPictureError as error:
        raise place.error(
            label, str(error), "a whole PNG, JPEG, WebP, GIF, BMP or TIFF", "repair or convert it"
        ) from None


def _bytes_of(place: Place, label: str, value: Any, trusted: bool) -> bytes:
    if isinstance(value, Mapping):
        held = value.get("bytes")
        value = held if held is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.startswith("data:"):
        return _of_address(place, label, value)
    if isinstance(value, str) and "://" not in value and value:
        return _of_file(place, label, value, trusted)
    seen = f"{type(value).__name__} {shorten(value)}"
    expected = "bytes, {'bytes': …, 'path': …}, a path relative to the data file, or a data: URL"
    raise place.error(label, seen, expected, f"download the picture and write its path, {TEXT_ONLY}")


def _of_address(place: Place, label: str, address: str) -> bytes:
    head, _, body = address.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("not base64")
        return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error) as error:
        expected = "data:image/…;base64,…"
        raise place.error(label, f"{shorten(address, 40)} ({error})", expected, "encode the picture again") from None


def _of_file(place: Place, label: str, name: str, trusted: bool) -> bytes:
    """Read a file that a row names. It must be in the folder of the data: data must not read the rest of the disk."""
    source = Path(place.source)
    folder = (source if source.is_dir() else source.parent).resolve()
    try:
        path = (folder / name).resolve()
        if not trusted and not path.is_relative_to(folder):
            problem, expected = "", f"a path within {folder}"
        elif path.exists() and not path.is_file():  # reading a pipe would never end
            problem, expected = " (not a file)", f"a file in {folder}"
        elif (size := path.stat().st_size) > MAX_BYTES:
            problem, expected = f" of {size:,} bytes", f"at most {MAX_BYTES:,}"
        else:
            return path.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # also raised for invalid names and circular links
        problem, expected = f" ({type(error).__name__})", f"a file in {folder}"
    next_step = f"correct the path or move the pictures next to the data file, {TEXT_ONLY}"
    raise place.error(label, f"the path {shorten(name)}{problem}", expected, next_step)


def refuse_numbered(source: str, column: str, names: Iterable[str]) -> None:
    """Refuse pictures that are spread over numbered columns, such as ``image_1`` to ``image_7``.

    Args:
        source: name of the table, for messages.
        column: column that is or may be read.
        names: all columns with pictures.

    Raises:
        DataError: two of the columns have the same name except for a number.
    """
    stem = _NUMBER.sub("", column)
    alike = sorted(name for name in {column, *names} if _NUMBER.sub("", name) == stem)
    if len(alike) > 1:
        next_step = f"join them into a column {IMAGES!r}, in the order of their positions in the prompt, {TEXT_ONLY}"
        expected = "one column with a list of pictures per row"
        raise source_error(source, f"pictures in the columns {alike}", expected, next_step)


def other_medium(value: Any) -> str | None:
    """Return ``"sound"`` or ``"video"`` if a value is such a file or names one, or is a list of them; otherwise None.

    >>> other_medium({"bytes": b"OggS", "path": None}), other_medium(["clip.mp4"]), other_medium("text")
    ('sound', 'video', None)
    """
    first = value[0] if isinstance(value, list) and value else value
    parts = [first.get("bytes"), first.get("path")] if isinstance(first, Mapping) else [first]
    for part in parts:
        if isinstance(part, bytes) and not looks_like_picture(part):
            found = "sound" if _SOUND.match(part) else "video" if _VIDEO.match(part) else None
        elif isinstance(part, str):
            found = "sound" if _SOUND_FILE.fullmatch(part) else "video" if _VIDEO_FILE.fullmatch(part) else None
        else:
            found = None
        if found:
            return found
    return None


def refuse_media(source: str, media: Mapping[str, str], chosen: str) -> None:
    """Refuse columns with sound or video. Nothing reads them, so the prompts would lack what they ask about.

    Args:
        source: name of the table, for messages.
        media: name of a column -> ``"sound"`` or ``"video"``.
        chosen: option ``image_column``. Only ``auto`` refuses; other values say what the prompts need.

    Raises:
        DataError: there is such a column.
    """
    if chosen != AUTO or not media:
        return
    name, medium = next(iter(media.items()))
    expected = "prompts with text, or text and pictures"
    next_step = f"set {OPTION}: {NONE} if the prompts are complete without the {medium}"
    raise source_error(source, f"{medium} in the column {name!r}", expected, next_step)


def is_picture_value(value: Any) -> bool:
    """Return whether a value is a picture or a list of pictures: bytes, or ``{bytes, path}`` as in ``datasets``."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, Mapping):
        return {"bytes", "path"} <= first.keys()
    return looks_like_picture(first)
