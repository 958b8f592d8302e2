"""What somebody asked to be written is there whole, or as it was before."""

import os
import resource
from contextlib import contextmanager

import pytest

from fairbench.errors import FairbenchError
from fairbench.files import whole, write


@contextmanager
def room_for(size):
    """Let no file grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_what_was_there(tmp_path):
    board = tmp_path / "board.json"
    write(board, "before")
    with room_for(1000), pytest.raises(FairbenchError, match=r"cannot write .*board\.json: File too large"):
        write(board, "x" * 5000)
    assert board.read_text() == "before"
    assert os.listdir(tmp_path) == ["board.json"]


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupted():
        with whole(tmp_path / "new" / "board.md") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [*tmp_path.rglob("*.md")] == []


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
    (tmp_path / "real.md").write_text("before")
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    write(tmp_path / "link.md", "after")
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "real.md").read_text() == "after"
    write(tmp_path / "real.md", "again")
    ours, theirs = os.pipe()
    os.symlink(f"/proc/self/fd/{theirs}", tmp_path / "pipe")
    write(tmp_path / "pipe", "through")
    os.close(theirs)
    assert os.read(ours, 100) == b"through"
    os.close(ours)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FairbenchError, match="file is no folder"):
        write(tmp_path / "file" / "deeper" / "board.md", "")
