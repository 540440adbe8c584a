"""A file is written whole or not at all."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rvpo.files import disk_trouble, is_stream, whole, write


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


# --- a disk that does not take it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "run/model"), "run/model: the disk is full: make room"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "access is denied"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0"), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "the disk is full"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "read-only"),
    ],
)
def test_trouble_of_a_disk_is_told_with_what_to_do(error: Exception, words: str):
    outer = ValueError("could not be saved")
    outer.__cause__ = error
    for one in (error, outer):
        told = disk_trouble(one)
        assert told is not None
        assert words in told
        assert "\n" not in told


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(errno.ENOENT, "No such file", "a"),
     RuntimeError("PytorchStreamReader failed reading zip archive"),
     ValueError("No space"), ConnectionRefusedError(errno.ECONNREFUSED, "refused"), RuntimeError("out of memory")],
)  # fmt: skip
def test_other_errors_are_no_trouble_of_a_disk(error: Exception):
    assert disk_trouble(error) is None


def test_a_limit_on_the_size_of_files_leaves_what_was_there(tmp_path: Path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "values.txt"
    write(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
            write(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "ulimit -f" in str(disk_trouble(caught.value))
    assert path.read_text() == "old"


@pytest.mark.parametrize("library", ["safetensors", "tokenizers", "torch", "pyarrow", "sqlite3"])
def test_every_library_that_writes_is_understood(tmp_path: Path, library: str):
    """Each with its own error, as of the version that is installed."""
    resource = pytest.importorskip("resource")
    module = pytest.importorskip(library)
    path = str(tmp_path / "file")
    zeros = b"\0" * 100_000

    def fill() -> None:
        if library == "safetensors":
            import torch
            from safetensors.torch import save_file

            save_file({"a": torch.zeros(100_000)}, path)
        elif library == "tokenizers":
            words = {str(number): number for number in range(20_000)}
            module.Tokenizer(module.models.WordLevel(words, unk_token="0")).save(path)
        elif library == "torch":
            module.save(module.arange(100_000), path)
        elif library == "pyarrow":
            from pyarrow import parquet

            parquet.write_table(module.table({"a": list(range(100_000))}), path)
        else:
            with module.connect(path) as connection:
                connection.execute("create table t (a)")
                connection.execute("insert into t values (?)", (zeros,))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the library raises
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert disk_trouble(caught.value) is not None


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(
        [sys.executable, "-c", f"print(open({str(pipe)!r}).read(), end='')"], stdout=subprocess.PIPE
    )
    write(pipe, "all of it\n")
    assert reader.communicate(timeout=60)[0] == b"all of it\n"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_is_written_and_not_replaced(tmp_path: Path, device: str):
    link = tmp_path / "device"  # a mistake would replace this link, and never the device of the machine
    link.symlink_to(device)
    write(link, "nothing is kept")
    assert link.is_symlink()
    assert stat.S_ISCHR(link.stat().st_mode)
    assert [file.name for file in tmp_path.iterdir()] == ["device"]


@pytest.mark.parametrize("stream", ["/dev/stdout", "/dev/fd/1"])
def test_a_standard_stream_keeps_what_was_printed(tmp_path: Path, stream: str):
    assert is_stream(Path(stream))  # otherwise the code below would replace it
    code = f"from pathlib import Path; from rvpo.files import write; write(Path({stream!r}), '1')"
    code = f"print('table', flush=True); {code}"
    with (tmp_path / "out").open("wb") as out:  # standard output is a file that could be replaced
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, timeout=120)
    assert (tmp_path / "out").read_text() == "table\n1"
