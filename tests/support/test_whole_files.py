"""Files are written whole or not at all, with the mode of any new file, also by many threads at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from shiftlens.support.whole_files import write_text, write_whole
from shiftlens.tuning.checkpoints import WholeFiles

pytestmark = pytest.mark.quick


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")

    def half(partial):
        partial.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, half)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_threads_change_neither_the_umask_nor_the_mode(tmp_path):
    before = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: write_text(tmp_path / f"{i % 5}.txt", "x" * 1000), range(200)))
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}
        assert {file.read_text() for file in tmp_path.iterdir()} == {"x" * 1000}
        assert len(list(tmp_path.iterdir())) == 5
    finally:
        assert os.umask(before) == 0o027


def test_a_pipe_is_written_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(pipe.read_text)
        write_text(pipe, "through")
        assert text.result() == "through"
    assert pipe.is_fifo()


def test_what_a_killed_checkpoint_left_is_removed_with_the_next(tmp_path):
    (tmp_path / ".last.ckpt.0badcafe").write_bytes(b"half")
    WholeFiles().save_checkpoint({"step": 3}, tmp_path / "last.ckpt")
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"step": 3}
