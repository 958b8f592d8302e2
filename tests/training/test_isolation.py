"""A method cannot change what other jobs inherit: each way fails by name, and the next job is untouched."""

import gc
import os
import random
import tempfile
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from builders import sampled

from fairbench import Method, States, plugins
from fairbench.jobs.job import Choice, Job
from fairbench.jobs.store import PREDICTIONS, Store
from fairbench.testing.toys import STAGES, ToyBackbone, ToyDataset, toy_plugins, train
from fairbench.training.isolation import Imprint, Process, checksum
from fairbench.training.worker import Worker


class Plain(Method):
    """Plain fine-tuning."""

    name = "plain"


def scaled(run):
    with torch.no_grad():
        run.backbone.language_model.embed_tokens.weight.mul_(1.01)


def buffered(run):
    for name, buffer in run.backbone.named_buffers():
        if name.endswith("inv_freq"):
            buffer.mul_(1.01)


def hooked(run):
    run.backbone.language_model.layers[0].register_forward_hook(lambda module, inputs, output: output)


def stretched(run):
    for module in run.backbone.modules():
        if hasattr(module, "scaling") and isinstance(module.scaling, dict):
            module.scaling["default"] = 3.0


def configured(run):
    run.backbone.language_model.config.rms_norm_eps = 1e-2


def replaced(run):
    run.backbone.language_model.norm = torch.nn.Identity()


def in_a_folder_that_is_gone(run):
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def undescribed(run):
    run.backbone.language_model.config = None


WAYS = {
    "gone": (in_a_folder_that_is_gone, "the working directory"),
    "undescribed": (undescribed, "the backbone, which cannot be looked at any more (AttributeError"),
    "threads": (lambda run: torch.set_num_threads(torch.get_num_threads() + 1), "the number of threads"),
    "counted": (lambda run: Meddler.seen.append(1), "`seen` of the class Meddler"),
    "scaled": (scaled, "the frozen model.decoder.embed_tokens.weight"),
    "buffered": (buffered, "inv_freq"),
    "hooked": (hooked, "the setup of model.decoder.layers.0"),
    "stretched": (stretched, "the setup of model.decoder.layers.0.self_attn"),
    "configured": (configured, "the setup of config"),
    "replaced": (replaced, "model.decoder.norm"),
    "half": (lambda run: torch.set_default_dtype(torch.float64), "the default number format"),
    "moved": (lambda run: os.chdir("/"), "the working directory"),
    "nothing": (lambda run: random.random() + np.random.rand() + float(torch.rand(())), None),
}


class Meddler(Plain):
    """Do one of these at the end."""

    name = "meddler"
    way: str = "nothing"
    seen = []

    def end_stage(self, run):
        WAYS[self.way][0](run)


class Scribbler(Plain):
    """Write into the examples of a batch."""

    name = "scribbler"

    def loss(self, out, batch):
        for example in batch.examples:
            example["features"].mul_(0)
        return out.loss.mean()


class Noter(Plain):
    """Note what no record can hold, and warn of what is no text."""

    name = "noter"

    def end_stage(self, run):
        run.warn({"a": 1})
        run.facts["odd"] = {(1, 2): float("inf")}


def job(method, settings):
    data = Choice("toy", fingerprint=ToyDataset().fingerprint())
    return Job(data, Choice("toy-backbone"), Choice(method, settings), STAGES, ("site",))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(Plain, out=tmp_path_factory.mktemp("alone")).predictions


@pytest.mark.parametrize("way", sampled(WAYS, "counted", "scaled", "hooked", "nothing"))
def test_the_next_job_inherits_nothing(way, alone, tmp_path):
    worker = Worker(Store(tmp_path), toy_plugins(Plain, Meddler), {}, lambda *_: None)
    where, drawn = os.getcwd(), (random.getstate(), torch.get_rng_state())
    record = worker.run(job("meddler", {"way": way}))
    fault = WAYS[way][1]
    if fault is None:
        assert record.error is None
    else:
        assert f"meddler(way={way}) changed what other jobs inherit: " in record.error
        assert fault in record.error
    assert (os.getcwd(), torch.get_default_dtype()) == (where, torch.float32)
    assert random.getstate() == drawn[0]
    assert torch.equal(torch.get_rng_state(), drawn[1])
    after = worker.run(job("plain", {}))
    assert after.error is None
    table = pd.read_parquet(worker.store.folder(after.job) / PREDICTIONS)
    pd.testing.assert_frame_equal(table, alone)


def test_examples_that_are_kept_in_memory_are_the_next_jobs_too(alone, tmp_path):
    worker = Worker(Store(tmp_path), toy_plugins(Plain, Scribbler), {}, lambda *_: None)
    assert worker.run(job("scribbler", {})).error == (
        "scribbler changed what other jobs inherit: examples that are kept in memory"
    )
    after = worker.run(job("plain", {}))
    pd.testing.assert_frame_equal(pd.read_parquet(worker.store.folder(after.job) / PREDICTIONS), alone)


def test_notes_that_no_record_can_hold_are_a_failure_of_their_job_alone(tmp_path):
    worker = Worker(Store(tmp_path), toy_plugins(Plain, Noter), {}, lambda *_: None)
    record = worker.run(job("noter", {}))
    assert record.error.startswith("what its method noted cannot be written down (")
    assert record.warnings == ("{'a': 1}",)
    assert worker.store.record(record.job) == record
    assert worker.run(job("plain", {})).error is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8, torch.bool])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4099), (5000, 3)])
def test_a_checksum_sees_every_change(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=generator).to(dtype)
    whole = checksum(tensor)
    assert torch.equal(whole, checksum(tensor.clone()))
    if len(tensor.unique()) > 1 and dtype is not torch.bool:
        assert not torch.equal(whole, checksum(tensor.flatten().roll(1).view(shape)))
    flat = tensor.flatten()
    for place in {0, len(flat) // 2, len(flat) - 1}:
        other = flat.clone()
        other[place] = ~other[place] if dtype is torch.bool else other[place] + 1
        assert not torch.equal(whole, checksum(other.view(shape)))
        if dtype.is_floating_point and flat[place]:
            other = flat.clone()
            other[place] = -other[place]  # one bit, the highest
            assert not torch.equal(whole, checksum(other.view(shape)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-llava", "tiny-qwen2.5-vl"])
def test_training_a_real_family_changes_nothing_that_others_inherit(name):
    class Reads(Plain):
        """Ask for hidden states, which makes transformers put hooks of its own."""

        name = "reads"

        def step(self, run, batch):
            run.descend(run.forward(batch, States((0.5,))).loss.mean())

    assert train(Reads, backbone=plugins.load(("backbone",)).find("backbone", name)).record.error is None


def test_an_imprint_takes_the_weights_that_are_trained_for_granted():
    model = ToyBackbone()
    model.build(("a", "b"), ("a", "b"), torch.float32, torch.device("cpu"))
    before, process = Imprint.of(model), Process()
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(1.0)
    assert before.changes(Imprint.of(model)) == []
    assert process.restore() == []


def test_the_last_backbone_is_gone_before_the_next_is_loaded(tmp_path):
    """Else both would be on the device: their parts refer to each other, and only the collector lets them go."""
    alive = []

    class Next(ToyBackbone):
        name = "next"

        def construct(self):
            alive.append(last() is not None)
            super().construct()

    worker = Worker(Store(tmp_path), toy_plugins(Plain, Next), {}, lambda *_: None)
    data = Choice("toy", fingerprint=ToyDataset().fingerprint())
    gc.disable()
    try:
        assert worker.run(Job(data, Choice("toy-backbone"), Choice("plain"), stages=STAGES)).error is None
        last = weakref.ref(worker.kept("backbone"))
        assert worker.run(Job(data, Choice("next"), Choice("plain"), stages=STAGES)).error is None
    finally:
        gc.enable()
    assert alive[0] is False
