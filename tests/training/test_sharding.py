"""A backbone that is divided over processes: the same steps and answers, however unevenly the batches divide."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor
from verbs import Everything, Plain

from fairbench import FairbenchError, plugins
from fairbench.models import sharding
from fairbench.models.lora import share_inputs
from fairbench.testing.toys import TOLERANCE, ToyBackbone, ToyDataset, train

HERE = Path(__file__).parent
SMALL = {"rows_per_split": [21, 7, 9]}  # batches of five: the last has one row, and one of two processes none
QWEN = plugins.load(("backbone",)).find("backbone", "tiny-qwen2.5-vl")


class Words(ToyDataset):
    """Squares to be called by a word or two, so that processes come to the end of an answer at different times."""

    name = "words"
    task = "generate"
    classes = ()
    max_new_tokens = 6

    def table(self):
        table = super().table()
        table["reference"] = table["target"].where(table["image"] % 2 == 0, "very " + table["target"])
        return table.assign(prompt=self.prompt).drop(columns="target")


class Ending(ToyBackbone):
    """The toy, with an end that it may well write at once, and for some rows at no time."""

    name = "ending"

    @property
    def end_token_ids(self):
        return frozenset(range(0, 258, 3))


class Meddler(Plain):
    """It changes a frozen weight, of which the second process holds the part that changes."""

    name = "meddler"

    def step(self, run, batch):
        super().step(run, batch)
        if os.environ.get("RANK", "1") == "1" and run.step == 1:
            weight = run.backbone.language_model.layers[1].mlp.down_proj.weight.detach()
            sharding.local(weight)[-1, -1] += 1


class Halved(Plain):
    """It notes what this process holds of the layers."""

    name = "halved"

    def setup(self, run):
        trained = {id(p) for p in run.backbone.trainable().values()}
        layers = run.backbone.language_model.layers.named_parameters()
        frozen = [p for _, p in layers if id(p) not in trained]
        run.facts["sharded"] = all(isinstance(p, DTensor) for p in frozen)
        run.facts["held"] = sum(sharding.local(p).numel() for p in frozen) / sum(p.numel() for p in frozen)


CASES = {
    "every verb": (Everything, {"batch_size": 5, "micro_batch": 2, "dataset_settings": SMALL}),
    "written": (Plain, {"backbone": Ending, "dataset": Words, "batch_size": 5, "dataset_settings": SMALL}),
    "qwen": (
        Plain,
        {
            "backbone": QWEN,
            "backbone_settings": {"dropout": 0.1, "checkpointing": True},
            "dataset_settings": SMALL,
            "batch_size": 4,
            "micro_batch": 1,
        },
    ),
    "qwen writes": (
        Plain,
        {
            "backbone": QWEN,
            "backbone_settings": {"dropout": 0.0},
            "dataset": Words,
            "dataset_settings": SMALL,
            "batch_size": 5,
            "micro_batch": 2,
        },
    ),
}


def child(out):
    """What each of the processes does."""
    for name, (method, how) in CASES.items():
        outcome = train(method, out=out, shard=True, **how)
        if os.environ["RANK"] == "0":
            save_file(outcome.weights, out / f"{name}.safetensors")
            outcome.predictions.to_parquet(out / f"{name}.parquet")
    said = dict(train(Halved, out=out, shard=True).record.facts)
    try:
        train(Meddler, out=out, shard=True)
    except AssertionError as error:
        said["meddled"] = str(error)
    ToyBackbone.fits = 2
    try:
        train(Plain, micro_batch=3, out=out, shard=True)
    except FairbenchError as error:
        said["full"] = str(error)
    (out / f"said by {os.environ['RANK']}.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """The folder that two processes left."""
    out = tmp_path_factory.mktemp("sharded")
    script = f"from pathlib import Path; import test_sharding; test_sharding.child(Path({str(out)!r}))"
    (out / "child.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    process = subprocess.Popen(
        [*command, str(out / "child.py")], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        said = process.communicate(timeout=180)[1]
    finally:
        process.terminate()  # torchrun then ends the two, which may be waiting for each other
        process.wait()
    assert process.returncode == 0, said
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_divided_backbone_learns_and_answers_what_it_does_whole(name, sharded):
    method, how = CASES[name]
    whole, answers = train(method, **how), pd.read_parquet(sharded / f"{name}.parquet")
    weights = load_file(sharded / f"{name}.safetensors")
    apart = max(float((weights[n] - w).abs().max()) for n, w in whole.weights.items())
    assert apart < (TOLERANCE if how.get("backbone") is not QWEN else 1e-3)  # AdamW turns rounding into steps
    for column in whole.predictions:
        ours, theirs = answers[column], whole.predictions[column]
        if ours.dtype == float:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
        else:
            assert ours.tolist() == theirs.tolist(), column


@pytest.mark.slow
def test_each_process_holds_its_part_and_the_same_faults_are_found(sharded):
    for rank in range(2):
        said = json.loads((sharded / f"said by {rank}.json").read_text())
        assert said["sharded"]
        assert said["held"] == 0.5
        assert "changed what other jobs inherit: the frozen model.decoder.layers.1.mlp.down_proj" in said["meddled"]
        assert "out of memory on cpu" in said["full"]
        assert "halve their micro-batch" in said["full"]
    failed = [json.loads(path.read_text())["error"] for path in sharded.glob("*/record.json")]
    assert not [error for error in failed if error and "out of memory" in error and "inherit" in error]


def test_all_processes_make_as_many_passes():
    for total in range(20):
        for processes in range(1, 6):
            for size in range(1, 5):
                own = [-(-len(part) // size) for part in np.array_split(np.arange(total), processes)]
                mesh = SimpleNamespace(size=lambda processes=processes: processes)
                passes = [count + sharding.idle(mesh, total, count, size) for count in own]
                assert passes == [max(own)] * processes


def test_layers_compute_the_same_from_weights_that_are_not_stacked():
    torch.manual_seed(0)
    ways = []
    for stacked in (True, False):
        backbone = ToyBackbone(dropout=0.1)
        backbone.load(torch.float32)
        backbone.attach(("no", "yes"), ("no", "yes"))
        share_inputs(backbone.language_model, stacked)
        for name, parameter in backbone.trainable().items():
            generator = torch.Generator().manual_seed(len(name))
            parameter.data = torch.randn(parameter.shape, generator=generator)
        torch.manual_seed(1)
        backbone.train(True)
        out = backbone.language_model(inputs_embeds=torch.linspace(-1, 1, 96).reshape(2, 3, 16)).last_hidden_state
        out.square().sum().backward()
        ways.append([out, *(p.grad for p in backbone.part("lora"))])
    for stacked, alone in zip(*ways, strict=True):
        torch.testing.assert_close(stacked, alone, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(FairbenchError, match="here is one"):
        sharding.everyone(torch.device("cpu"))
    with pytest.raises(FairbenchError, match="Linear cannot be sharded: it has no list of 3 layers"):
        sharding.layers_of(nn.Linear(2, 2), 3)
    quantised = nn.Linear(2, 2, bias=False)
    quantised.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    decoder = nn.Sequential(nn.ModuleList([quantised]))
    with pytest.raises(FairbenchError, match=r"0\.weight is quantised"):
        sharding.shard(decoder, 1, (), None)
