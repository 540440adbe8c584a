"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvpo.files import whole, write


def test_the_file_and_its_folder_appear_together(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "values.bin"
    with whole(path) as partial:
        partial.write_bytes(b"\x00\x01")
        assert not path.exists()
        assert partial.parent == path.parent, "a replace is atomic on one file system only"
    assert path.read_bytes() == b"\x00\x01"
    assert [entry.name for entry in path.parent.iterdir()] == ["values.bin"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("begun", [True, False])
def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path, error: BaseException, begun: bool):
    path = tmp_path / "values.txt"
    path.write_text("old")

    def fail() -> None:
        with whole(path) as partial:
            if begun:
                partial.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["values.txt"]
    assert path.read_text() == "old"


def test_a_folder_in_the_way_is_an_error_and_leaves_nothing_partial(tmp_path: Path):
    path = tmp_path / "values.txt"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["values.txt"]


def test_text_is_utf8_as_given(tmp_path: Path):
    write(tmp_path / "text", "é\r\n\ud800")
    assert (tmp_path / "text").read_bytes() == "é\r\n?".encode()
