"""Features that do not fit in memory: the same ones, read from disk and held no longer than they are used."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fairbench.data.dataset import rows
from fairbench.testing.toys import ToyBackbone, ToyDataset
from fairbench.training import features
from fairbench.training.features import CHUNK, Encoded, OnDisk, Prepared, encode, seen


@pytest.fixture(scope="module")
def prepared():
    backbone = ToyBackbone()
    backbone.build(("dark", "bright"), ("dark", "bright"), torch.float32, torch.device("cpu"))
    data = ToyDataset()
    return Prepared(data, rows(data), backbone)


def encoded(prepared, folder, limit):
    return encode(prepared.backbone, prepared, folder, limit, lambda *_: None)


def test_what_memory_cannot_hold_is_read_from_disk(prepared, tmp_path):
    held, read = (encoded(prepared, tmp_path, limit) for limit in (1 << 30, 1))
    assert isinstance(held, Encoded)
    assert isinstance(read, Encoded)
    assert isinstance(read.examples, OnDisk)
    assert len(held) == len(read) == len(prepared) > CHUNK
    for one, other in zip(held, read.examples[:], strict=True):
        assert list(one) == list(other)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_disk_without_room_and_a_cache_of_nothing_see_images_anew(prepared, tmp_path, monkeypatch):
    assert encoded(prepared, tmp_path, 0) is prepared
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: type("Full", (), {"free": 10}))
    assert encoded(prepared, tmp_path, 1) is prepared
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what of memory is a file's")
def test_reading_from_disk_holds_nothing(tmp_path):
    def from_files():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))

    size = 1 << 26
    save_file(
        {f"{i:03d}.features": torch.ones(size // 4 // CHUNK) for i in range(CHUNK)},
        tmp_path / "00000000.safetensors",
    )
    examples, before = OnDisk(tmp_path, CHUNK), from_files()
    assert sum(float(example["features"].sum()) for example in examples) == size / 4
    assert from_files() - before < size / 4


def test_images_are_seen_together_as_each_alone(prepared):
    together = seen(prepared.backbone, [prepared[index] for index in range(8)])
    for index, example in enumerate(together):
        (alone,) = seen(prepared.backbone, [prepared[index]])
        torch.testing.assert_close(example["features"], alone["features"], atol=1e-6, rtol=1e-6)
