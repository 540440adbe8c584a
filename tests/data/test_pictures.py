"""Prompts with pictures, in the layouts that data sets have."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")
pytest.importorskip("PIL")
import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from rvpo.data import load_prompts
from rvpo.errors import ConfigError, DataError
from tiny_vision_model import drawing, write_geometry, write_jsonl

RED, BLUE = drawing("red"), drawing("blue")
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def held(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "path": path}


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def saved(path: Path, rows: list[dict[str, Any]], pictures: Any) -> Path:
    features = {name: Value("string") for name in rows[0]} | pictures
    datasets.Dataset.from_list(rows, features=Features(features)).save_to_disk(path)
    return path


def parts(*texts: str | None) -> list[dict[str, str]]:
    """Return the parts of a content: texts, and None for a picture."""
    return [{"type": "image", "text": ""} if text is None else {"type": "text", "text": text} for text in texts]


MARKED = "<image>Find x."
ADDRESS = "data:image/png;base64," + base64.b64encode(RED).decode()


def layouts(folder: Path) -> dict[str, tuple[Path, list[dict[str, str]]]]:
    """Return files with one red picture each, and the parts of the user's message."""
    (folder / "red.png").write_bytes(RED)
    answer = {"answer": "3"}
    of_verl = {
        "data_source": "geo",
        "prompt": [{"role": "user", "content": "<image>Find x."}],
        "images": [held(RED)],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"index": 0},
    }
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Find x."}]}]
    inline = [{"role": "user", "content": [{"type": "text", "text": "See "}, {"type": "image", "image": ADDRESS}]}]
    as_url = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "red.png"}}, parts("x?")[0]]}]
    before, own = parts(None, "Find x."), {"problem": "Find x.", **answer}
    return {
        "geometry3k": (parquet(folder / "a.parquet", [{"images": [held(RED)], **own, "problem": MARKED}]), before),
        "one picture": (parquet(folder / "b.parquet", [{"image": held(RED), **own}]), before),
        "plain bytes": (parquet(folder / "c.parquet", [{"image": RED, **own}]), before),
        "verl": (parquet(folder / "d.parquet", [of_verl]), before),
        "saved": (saved(folder / "e", [{"image": held(RED), **own}], {"image": Image()}), before),
        "saved lists": (saved(folder / "f", [{"images": [held(RED)], **own}], {"images": List(Image())}), before),
        "path": (write_jsonl(folder / "g.jsonl", [{"image": "red.png", **own}]), before),
        "paths": (write_jsonl(folder / "h.jsonl", [{"images": ["red.png"], **own}]), before),
        "chat and column": (write_jsonl(folder / "i.jsonl", [{"prompt": chat, "image": ADDRESS, **answer}]), before),
        "inline": (write_jsonl(folder / "j.jsonl", [{"prompt": inline, **answer}]), parts("See ", None)),
        "address of a file": (write_jsonl(folder / "k.jsonl", [{"messages": as_url, **answer}]), parts(None, "x?")),
    }  # fmt: skip


KINDS = ("geometry3k", "one picture", "plain bytes", "verl", "saved", "saved lists", "path", "paths", "chat and column",
         "inline", "address of a file")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_read_whatever_the_layout(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path, content = layouts(tmp_path)[kind]
    [row] = load_prompts(path, system_prompt="Reason.")
    assert row["prompt"] == [
        {"role": "system", "content": parts("Reason.")},
        {"role": "user", "content": content},
    ]
    assert row["answer"] == "3"
    [picture] = row["images"]
    assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", COLOURS["red"])
    assert "pictures = " in caplog.text  # what was read is told


def test_several_pictures_stand_where_the_text_says(tmp_path: Path):
    row = {"images": [held(RED), held(BLUE)], "prompt": "Is <image> under <image>?", "answer": "no"}
    [read] = load_prompts(parquet(tmp_path / "x.parquet", [row]))
    assert read["prompt"][0]["content"] == parts("Is ", None, " under ", None, "?")
    assert [picture.getpixel((0, 0)) for picture in read["images"]] == [COLOURS["red"], COLOURS["blue"]]
    [read] = load_prompts(parquet(tmp_path / "y.parquet", [row | {"prompt": "Which?"}]))
    assert read["prompt"][0]["content"] == parts(None, None, "Which?")


def test_the_same_text_with_another_picture_is_another_prompt(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = load_prompts(write_geometry(tmp_path / "x.parquet", rows=6))
    assert len({str(prompt) for prompt in data["prompt"]}) == 1
    assert "repeat a prompt" not in caplog.text
    same = [{"images": [held(RED)], "prompt": "Find x.", "answer": answer} for answer in ("1", "2")]
    load_prompts(parquet(tmp_path / "y.parquet", same))
    assert "2 of 2 rows repeat a prompt with another answer" in caplog.text


def test_pictures_can_be_left_out_by_name(tmp_path: Path):
    row = {"image": held(RED), "problem": "Find x.", "answer": "3"}
    path = parquet(tmp_path / "x.parquet", [row])
    assert load_prompts(path, image_column="none")[0] == {"prompt": "Find x.", "answer": "3"}
    other = parquet(tmp_path / "y.parquet", [{"diagram": held(RED), "problem": "Find x.", "answer": "3"}])
    with pytest.raises(DataError, match=r"pictures in the columns \['diagram'\].*image_column: diagram"):
        load_prompts(other)
    assert len(load_prompts(other, image_column="diagram")[0]["images"]) == 1
    assert "images" not in load_prompts(other, image_column="none").column_names
    disk = saved(tmp_path / "z", [{"diagram": held(RED), "problem": "Find x.", "answer": "3"}], {"diagram": Image()})
    with pytest.raises(DataError, match=r"pictures in the columns \['diagram'\]"):
        load_prompts(disk)


MEDIA = {
    "wave": (b"RIFF\x24\x00\x00\x00WAVEfmt ", "sound"),
    "mp3": (b"ID3\x03\x00", "sound"),
    "mp4": (b"\x00\x00\x00\x20ftypisom", "video"),
}


@pytest.mark.parametrize("name", MEDIA)
@pytest.mark.parametrize("form", ["bytes", "struct", "list"])
def test_sound_and_video_are_refused_by_their_name(tmp_path: Path, name: str, form: str):
    content, medium = MEDIA[name]
    value = {"bytes": content, "struct": {"bytes": content, "path": None}, "list": [{"bytes": content, "path": None}]}
    path = parquet(tmp_path / "x.parquet", [{"clip": value[form], "problem": "What is said?", "answer": "3"}])
    told = rf"{medium} in the column 'clip'; expected prompts with text, or text and pictures.*set image_column: none"
    with pytest.raises(DataError, match=told):
        load_prompts(path)
    assert len(load_prompts(path, image_column="none")) == 1


def test_paths_of_sound_are_refused_and_a_text_about_them_is_not(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"audio": "clips/1.wav", "prompt": "What is said?", "answer": "3"}\n')
    with pytest.raises(DataError, match="sound in the column 'audio'"):
        load_prompts(path)
    assert len(load_prompts(path, image_column="none")) == 1
    path.write_text('{"note": "see 1.wav please", "prompt": "What is said?", "answer": "3"}\n')
    assert len(load_prompts(path)) == 1


def test_a_saved_dataset_with_sound_is_refused_without_decoding_it(tmp_path: Path):
    row = {"audio": {"bytes": MEDIA["wave"][0], "path": None}, "problem": "What is said?", "answer": "3"}
    table = datasets.Dataset.from_list([row]).cast_column("audio", datasets.Audio(decode=False))
    disk = tmp_path / "z"
    table.cast_column("audio", datasets.Audio()).save_to_disk(disk)
    with pytest.raises(DataError, match="sound in the column 'audio'"):
        load_prompts(disk)
    assert len(load_prompts(disk, image_column="none")) == 1


GOOD = {"prompt": "<image>Find x.", "answer": "3", "images": [ADDRESS]}
MALFORMED = {
    "no picture": ({"images": []}, "field 'images': saw no picture; expected at least one, as in other rows"),
    "null": ({"images": None}, "saw no picture"),
    "too few": ({"prompt": "<image> <image>"}, "saw 2 placeholders <image> and 1 pictures"),
    "too many": ({"images": [ADDRESS, ADDRESS]}, "saw 1 placeholders <image> and 2 pictures"),
    "no such file": ({"images": ["absent.png"]}, r"'images\[0\]': saw the path 'absent.png' \(FileNotFoundError\)"),
    "outside": ({"images": ["../x.png"]}, "the path '../x.png'; expected a path within"),
    "absolute": ({"images": ["/etc/passwd"]}, "the path '/etc/passwd'; expected a path within"),
    "web": ({"images": ["https://example.org/x.png"]}, "download the picture"),
    "not base64": ({"images": ["data:image/png;base64,!"]}, "encode the picture again"),
    "SVG": ({"images": ["data:image/svg+xml;base64,PHN2Zy8+"]}, "not one of PNG, JPEG"),
    "a number": ({"images": [7]}, "saw int 7"),
    "twice": (
        {"prompt": [{"role": "user", "content": [{"type": "image", "image": ADDRESS}, {"type": "text", "text": "x"}]}]},
        "1 pictures in the prompt's parts and 1 in the column 'images'",
    ),
    "a video": (
        {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "video"}]}]},
        "a part with text or a picture",
    ),
    "of the system": (
        {"prompt": [{"role": "system", "content": "<image>"}, {"role": "user", "content": "x"}]},
        "a picture in a message of the role 'system'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_row_names_its_place(change: dict[str, Any], message: str, tmp_path: Path):
    chat = isinstance(change.get("prompt"), list)
    good = GOOD | ({"prompt": [{"role": "user", "content": "<image>Find x."}]} if chat else {})
    path = write_jsonl(tmp_path / "x.jsonl", [good, good | change])
    with pytest.raises(DataError, match=r"row 1 \(line 2\), .*" + message) as caught:
        load_prompts(path)
    assert "; next step: " in str(caught.value)


def test_a_prompt_about_a_picture_that_is_not_there_is_refused(tmp_path: Path):
    rows = [{"prompt": "<image>Find x.", "answer": "3"}]
    with pytest.raises(DataError, match=r"<image> in 1 of 1 prompts, and no pictures.*image_column: none"):
        load_prompts(write_jsonl(tmp_path / "x.jsonl", rows))
    assert load_prompts(tmp_path / "x.jsonl", image_column="none")[0]["prompt"] == "<image>Find x."
    few = [{"prompt": f"Sum {i}", "answer": "3"} for i in range(5)] + [
        {"prompt": "What is <image> in HTML?", "answer": "a"}
    ]
    assert len(load_prompts(write_jsonl(tmp_path / "y.jsonl", few))) == 6


def test_options_that_cannot_work(tmp_path: Path):
    path = write_jsonl(tmp_path / "x.jsonl", [GOOD])
    with pytest.raises(ConfigError, match="image_column='images' with layout='rlla'"):
        load_prompts(path, layout="rlla", image_column="images")
    with pytest.raises(ConfigError, match="image_column=''"):
        load_prompts(path, image_column="")
    with pytest.raises(DataError, match="field 'pics': saw no pictures"):
        load_prompts(path, image_column="pics")
    both = write_jsonl(tmp_path / "y.jsonl", [GOOD | {"image": ADDRESS}])
    with pytest.raises(DataError, match=r"both columns \['images', 'image'\]"):
        load_prompts(both)


def test_a_transparent_drawing_is_on_white(tmp_path: Path):
    clear = drawing((0, 0, 0, 0), mode="RGBA")
    [row] = load_prompts(parquet(tmp_path / "x.parquet", [{"image": held(clear), "problem": "x", "answer": "3"}]))
    assert row["images"][0].getpixel((0, 0)) == (255, 255, 255)
    assert io.BytesIO(clear).getbuffer().nbytes


@pytest.mark.parametrize("name", ["a\0b.png", "a\ud800.png", "x" * 5000, ".", "circle", "pipe"])
def test_a_name_that_is_no_file_is_refused(name: str, tmp_path: Path):
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")  # nobody writes into it
    path = write_jsonl(tmp_path / "x.jsonl", [{"problem": "Find x.", "answer": "3", "image": name}])
    with pytest.raises(DataError, match=r"row 0 .*the path"):
        load_prompts(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("figure", ADDRESS),
        ("image_path", "drawings/1.png"),
        ("image_url", ["https://example.org/1.jpg"]),
        ("drawing", {"bytes": None, "path": "1.png"}),
    ],
)
@pytest.mark.parametrize("rubric", [False, True])
def test_pictures_under_another_name_are_not_left_out_in_silence(
    column: str, value: object, rubric: bool, tmp_path: Path
):
    criteria = {"rubric": [{"title": "t", "description": "States x.", "weight": 3}], "reference_answer": "3"}
    row = {"question": "Find x.", **(criteria if rubric else {"answer": "3"}), column: value}
    path = write_jsonl(tmp_path / "x.jsonl", [row])
    with pytest.raises(DataError, match=f"pictures in the columns \\['{column}'\\].*set image_column: {column}"):
        load_prompts(path)
    assert len(load_prompts(path, image_column="none")) == 1


@pytest.mark.parametrize(
    "more", [{"answer": "1.png"}, {"avatar": "https://example.org/1.png"}, {"note": "see 1.png"}], ids=str
)
def test_names_of_pictures_elsewhere_are_none(more: dict[str, str], tmp_path: Path):
    row = {"question": "Which file is it?", "answer": "3", **more}
    assert load_prompts(write_jsonl(tmp_path / "x.jsonl", [row])).column_names == ["prompt", "answer"]


def test_a_system_prompt_has_no_picture(tmp_path: Path):
    path = write_jsonl(tmp_path / "x.jsonl", [{"problem": "Find x.", "answer": "3", "image": ADDRESS}])
    with pytest.raises(ConfigError, match="system_prompt contains <image>"):
        load_prompts(path, system_prompt="Look at <image> first.")


@pytest.mark.parametrize("stem", ["image_", "image", "figure "])
def test_pictures_in_numbered_columns_are_not_left_out_in_silence(stem: str, tmp_path: Path):
    first, second = f"{stem}1", f"{stem}2"
    rows = [
        {"problem": "Find x.", "answer": "3", first: held(RED), second: held(RED) if i == 2 else None} for i in range(3)
    ]
    path = parquet(tmp_path / "x.parquet", rows)
    for chosen in ("auto", first, second):
        with pytest.raises(DataError, match=rf"pictures in the columns \['{first}', '{second}'\].*join them"):
            load_prompts(path, image_column=chosen)
    assert len(load_prompts(path, image_column="none")) == 3
