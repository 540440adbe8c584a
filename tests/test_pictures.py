"""Pictures: what is not one is refused before it is unpacked, and what is one says the same to every reader."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest

pytest.importorskip("PIL")
from PIL import Image

from rvpo import pictures
from rvpo.pictures import NotAPictureError, checked_bytes, data_uri, decode, digest, is_digest, record, recorded_path
from tiny_vision_model import drawing


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """Return a small file that says it is a large picture."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def animation() -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


NOT_PICTURES = {
    "nothing": (b"", "no bytes"),
    "text": (b"root:x:0:0", "begin with b'root:x:0:0'"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "not one of PNG"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not one of PNG"),
    "cut off": (drawing("red", (90, 90))[:-30], "damaged picture"),
    "turned bits": (drawing("red")[:40] + b"\xff" * 40, "damaged picture"),
    "bomb": (png_of_size(60_000, 60_000), "more pixels than the 50,000,000 that are unpacked"),
    "just too large": (png_of_size(10_000, 5_001), "10000 x 5001 pixels; at most 50,000,000"),
    "several frames": (animation(), "several frames"),
    "unknown white": (saved(Image.new("F", (4, 4)), "TIFF"), "mode 'F'"),
}


@pytest.mark.parametrize(("data", "seen"), NOT_PICTURES.values(), ids=NOT_PICTURES.keys())
def test_what_is_not_a_picture_is_refused(data: bytes, seen: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(NotAPictureError, match=seen):
        decode(data)


def test_large_files_are_not_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 10)
    with pytest.raises(NotAPictureError, match="bytes; at most 10 are read"):
        decode(drawing("red"))


TRANSPARENT = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
ON_WHITE = {
    "RGBA": saved(TRANSPARENT, "PNG"),
    "LA": saved(TRANSPARENT.convert("LA"), "PNG"),
    "palette": saved(Image.new("P", (4, 4), 0), "PNG", transparency=0),
    "WebP": saved(TRANSPARENT, "WEBP", lossless=True),
    "16 bits": saved(Image.new("I;16", (4, 4), 65535), "PNG"),
    "CMYK": saved(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "JPEG"),
}


@pytest.mark.parametrize("data", ON_WHITE.values(), ids=ON_WHITE.keys())
def test_every_reader_sees_the_same(data: bytes):
    """A black drawing on a transparent ground is black on black for a reader that drops the transparency."""
    plain = Image.open(io.BytesIO(checked_bytes(data)))
    assert plain.mode == "RGB"
    assert min(plain.getpixel((1, 1))) > 250
    assert digest(decode(data)) == digest(plain)


def test_a_rotated_picture_is_upright():
    rotation = Image.Exif()
    rotation[0x0112] = 6
    data = saved(Image.new("RGB", (40, 20), "red"), "JPEG", exif=rotation)
    assert Image.open(io.BytesIO(checked_bytes(data))).size == (20, 40)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_usual_pictures_keep_their_bytes(kind: str):
    data = drawing("white", kind=kind)
    assert checked_bytes(data) is data


def test_the_digest_is_that_of_the_pixels():
    as_png, as_bmp = decode(drawing("red")), decode(drawing("red", kind="BMP"))
    assert digest(as_png) == digest(as_bmp)
    others = [drawing("blue"), drawing("red", (30, 40)), drawing("red", (41, 30))]
    assert len({digest(as_png), *(digest(decode(other)) for other in others)}) == 4


def test_a_picture_is_recorded_once_and_small(tmp_path: Path):
    large = decode(drawing("red", (2000, 1000)))
    names = {record(large, tmp_path), record(large, tmp_path), record(decode(drawing("red", (2000, 1000))), tmp_path)}
    [path] = tmp_path.iterdir()
    assert names == {path.stem}
    assert recorded_path(tmp_path, path.stem) == path
    assert Image.open(path).size == (512, 256)
    assert large.size == (2000, 1000)  # the model's own stays as it is


def test_a_folder_keeps_a_bounded_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "MAX_RECORDED", 2)
    names = [record(decode(drawing((i, 0, 0))), tmp_path) for i in range(4)]
    assert len(set(names)) == 4
    assert len(list(tmp_path.iterdir())) == 2
    assert recorded_path(tmp_path, names[-1]) is None


@pytest.mark.parametrize("name", ["../secret", "a" * 63, "A" * 64, "", None, 7, "a" * 64 + "/x"])
def test_a_name_that_is_not_a_digest_is_not_a_path(name: object, tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(drawing("red"))
    assert recorded_path(tmp_path / "pictures", name) is None


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path):
    (tmp_path / "own.png").write_bytes(drawing("red"))
    (folder := tmp_path / "pictures").mkdir()
    (folder / f"{'a' * 64}.png").symlink_to(tmp_path / "own.png")
    assert recorded_path(folder, "a" * 64) is None


def test_a_page_gets_pixels_and_nothing_else(tmp_path: Path):
    comment = saved(Image.new("RGB", (9, 9)), "JPEG", comment=b"<script>alert(1)</script>")
    (path := tmp_path / "x.jpg").write_bytes(comment)
    address = data_uri(path, 8, 4000)
    assert address is not None
    assert address.startswith("data:image/png;base64,")
    for data in (b"<svg/>", b"", png_of_size(60_000, 60_000)):
        path.write_bytes(data)
        assert data_uri(path, 8, 4000) is None
    path.write_bytes(drawing("red"))
    assert data_uri(path, 8, 30) is None
    assert data_uri(tmp_path / "absent.png", 8, 4000) is None


@pytest.mark.parametrize(
    "name", [None, 3, {"bytes": b""}, ["a" * 64], "", "a" * 63, "A" * 64, "a" * 64 + "\n", "../" * 21]
)
def test_what_a_record_may_hold_instead_of_a_digest(name: object):
    assert not is_digest(name)
    assert is_digest(digest(Image.new("RGB", (2, 2))))
