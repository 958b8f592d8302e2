"""What every method must do: checks whose names say what is promised."""

from __future__ import annotations

import copy
import random
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fairbench.jobs.job import Stage
from fairbench.models.batch import Batch, Outputs
from fairbench.testing import elsewhere
from fairbench.testing.elsewhere import GENTLE
from fairbench.testing.toys import STAGES, TOLERANCE, Outcome, ToyBackbone, ToyDataset, difference, train
from fairbench.training.method import Method
from fairbench.training.run import Run


class Plain(Method):
    """Plain fine-tuning, to compare with."""

    name = "plain-for-comparison"


class Hidden(ToyDataset):
    """The same patients, of whom the test split tells other answers, sites and sexes."""

    name = "toy-with-other-test-answers"

    def table(self) -> pd.DataFrame:
        """Turn every test answer round, and give each test patient another's attributes."""
        table = super().table()
        test = (table["split"] == "test").to_numpy()
        table.loc[test, "target"] = table.loc[test, "target"].map({"dark": "bright", "bright": "dark"})
        table.loc[test, list(self.attributes)] = table.loc[test, list(self.attributes)].to_numpy()[::-1]
        return table


class Renamed(ToyDataset):
    """The same patients, of sites whose names come in another order."""

    name = "toy-with-other-names"
    attributes = {"site": ("x", "y", "z"), "sex": ("female", "male")}

    def table(self) -> pd.DataFrame:
        """Call a z, b y and c x."""
        table = super().table()
        return table.assign(site=table["site"].map({"a": "z", "b": "y", "c": "x"}))


class Newcomers(ToyDataset):
    """A site that no training row is from."""

    name = "toy-with-a-new-site"

    def table(self) -> pd.DataFrame:
        """Send every training patient of site c to site a."""
        table = super().table()
        moved = (table["split"] == "train") & (table["site"] == "c")
        table.loc[moved, "site"] = "a"
        return table


class Three(ToyDataset):
    """Three answers."""

    name = "toy-with-three-answers"
    classes = ("dark", "grey", "bright")

    def table(self) -> pd.DataFrame:
        """Call the levels in the middle grey."""
        table = super().table()
        return table.assign(target=table["target"].where((table["image"] - 128).abs() > 25, "grey"))


class Doubtful(ToyDataset):
    """The same patients, of whom the validation split tells other answers."""

    name = "toy-with-other-validation-answers"

    def table(self) -> pd.DataFrame:
        """Turn every validation answer round."""
        table = super().table()
        told = table["target"].map({"dark": "bright", "bright": "dark"})
        return table.assign(target=table["target"].where(table["split"] != "val", told))


class Told(ToyDataset):
    """The same patients, whose answer is to be written."""

    name = "toy-in-words"
    task = "generate"
    max_new_tokens = 8

    def table(self) -> pd.DataFrame:
        """Ask each row a question of its own, and name the answer."""
        table = super().table()
        return table.assign(prompt=self.prompt, reference="It is " + table["target"] + ".")


# ── what is asked ────────────────────────────────────────────────────────────────────────────────


@cache
def trained(
    method: type[Method], dataset: type[ToyDataset] = ToyDataset, unrecorded: str = "keep", gentle: bool = False
) -> Outcome:
    """Train with all defaults, once for all checks that compare with it."""
    return train(method, dataset=dataset, unrecorded=unrecorded, stages=GENTLE if gentle else STAGES)


def tolerance(method: type[Method]) -> float:
    """Return how far rounding may move weights in twelve steps at a gentle rate.

    AdamW divides a gradient by its own size, so where a method's `view` made images alike and gradients nearly
    vanish, rounding shows in full; a wrong batch changes 1e-4.
    """
    return TOLERANCE if method.view is Method.view else 1e-5


def check_says_what_it_does(method: type[Method]) -> None:
    """It has a name, a docstring, and defaults that its own settings accept."""
    assert method.name == method.name.lower(), "a name is lower case"
    assert method.__doc__, "a method's docstring is its idea and its source"
    again = method(**method().settings()).settings()
    assert again == method().settings(), f"its defaults are read back as {again}"


def check_uses_every_setting(method: type[Method]) -> None:
    """Its code reads each of its settings."""
    kinds = [kind for kind in method.__mro__ if issubclass(kind, Method) and kind is not Method]
    read = {name for kind in kinds for member in vars(kind).values() for name in _names(member)}
    unused = sorted(set(method.fields()) - read)
    assert not unused, f"nothing reads its setting {', '.join(unused)}"


def _names(member: Any) -> Iterator[str]:
    """Yield the attributes that a class's member reads, functions inside it included."""
    member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    code = member if isinstance(member, types.CodeType) else getattr(member, "__code__", None)
    if code is not None:
        yield from code.co_names
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from _names(constant)


def check_trains_and_predicts(method: type[Method]) -> None:
    """It leaves probabilities for every row that add up to one, and answers that do not contradict them."""
    frame = trained(method).predictions
    assert set(frame["split"]) == {"val", "test"}, "a split lacks its predictions"
    assert np.allclose(frame[["p_0", "p_1"]].sum(axis=1), 1), "probabilities do not add up to one"
    for group, part in frame[frame["split"] == "test"].groupby(frame["site"].fillna("not recorded")):
        yes, no = part.loc[part["answer"] == 1, "p_1"], part.loc[part["answer"] == 0, "p_1"]
        if len(yes) and len(no):
            assert yes.mean() >= no.mean(), f"in group {group} answers contradict probabilities"


def check_same_bits_twice(method: type[Method]) -> None:
    """The same job gives the same weights and predictions, to the last bit."""
    settings = {"dropout": 0.1}
    first, second = (train(method, backbone_settings=settings, micro_batch=4) for _ in range(2))
    assert difference(first, second) == 0, "the same job learned other weights"
    pd.testing.assert_frame_equal(first.predictions, second.predictions)


def check_goes_on_after_a_kill(method: type[Method]) -> None:
    """Killed in the midst of training, it learns the same to the last bit: it goes on, or begins anew."""
    again = train(method, killed_at=trained(method).record.steps // 2 + 1)
    apart = difference(again, trained(method))
    assert apart == 0, (
        f"killed and begun again it learned other weights, by {apart:.1e}: it keeps something elsewhere"
    )


def check_random_numbers_follow_the_seed(method: type[Method]) -> None:
    """Whatever its file seeds, it seeds by the job: not with a constant."""
    used = []
    for seed in (0, 1):
        with seeds_of(method) as seeds:
            train(method, seed=seed)
        used.append(seeds)
    constant = set(used[0]) & set(used[1])
    assert not constant, f"it seeds random numbers with {min(constant)} whatever the job's seed"


@contextmanager
def seeds_of(method: type[Method]) -> Iterator[list[str]]:
    """Note every seed that the method's own file sets."""
    seeds: list[str] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            if sys._getframe(1).f_globals.get("__name__") == method.__module__:
                seeds.append(repr((arguments[-1:], named)))
            return function(*arguments, **named)

        return noted

    class Generator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            if sys._getframe(1).f_globals.get("__name__") == method.__module__:
                seeds.append(repr(seed))
            return super().manual_seed(seed)

    with (
        mock.patch.object(torch, "manual_seed", noting(torch.manual_seed)),
        mock.patch.object(torch, "Generator", Generator),
        mock.patch.object(np.random, "default_rng", noting(np.random.default_rng)),
        mock.patch.object(np.random, "seed", noting(np.random.seed)),
        mock.patch.object(random, "seed", noting(random.seed)),
    ):
        yield seeds


def check_micro_batches_change_nothing(method: type[Method]) -> None:
    """Its weights are the same whether eight examples are computed at once, by two or one by one."""
    for size in (1, 3):
        apart = difference(trained(method, gentle=True), train(method, micro_batch=size, stages=GENTLE))
        assert apart < tolerance(method), f"micro-batches of {size} change weights by {apart:.1e}"


def check_takes_one_step_a_batch(method: type[Method]) -> None:
    """The backbone takes at most one optimizer step for each batch, as everybody's does."""
    stepped: list[bool] = []

    class Counted(method):  # type: ignore[valid-type, misc]
        def step(self, run: Run, batch: Batch) -> None:
            real, count = run._step, 0

            def step(player: int, parameters: Any) -> None:
                nonlocal count
                count += player == id(run.backbone)
                real(player, parameters)

            with mock.patch.object(run, "_step", step):
                super().step(run, batch)
            stepped.append(count > 1)

    Counted.__module__ = method.__module__
    train(Counted)
    assert not any(stepped), "it moves the backbone more than once for a batch"


def check_keeps_dropout(method: type[Method]) -> None:
    """Dropout is on while it trains."""
    if trained(method).record.steps:
        wet = train(method, backbone_settings={"dropout": 0.5})
        assert difference(wet, trained(method)) > 1e-5, "dropout makes no difference to what it learns"


def check_never_reads_the_test_split(method: type[Method]) -> None:
    """Other answers and, unless it may know groups, other attributes of test patients change no prediction."""
    hidden, open_ = trained(method, Hidden), trained(method)
    assert difference(hidden, open_) == 0, "what it learns depends on test patients' answers or groups"
    if not method.group_at_test:
        columns = [c for c in map(str, open_.predictions) if c == "answer" or c.startswith("p_")]
        same = hidden.predictions[columns].equals(open_.predictions[columns])
        assert same, "its answers depend on test patients' answers or groups"


def check_does_not_choose_by_validation(method: type[Method]) -> None:
    """The validation split changes no weights, unless the record says that it was trained on or looked at."""
    ours = trained(method)
    if ours.record.spends_validation or ours.record.looks or not ours.record.steps:
        return
    same = difference(trained(method, Doubtful), ours) == 0
    assert same, (
        "what it learns depends on the validation split, by no stage on `val` and not through `run.answers`"
    )


def check_other_processes_learn_the_same(method: type[Method]) -> None:
    """Two processes that share each batch, and hash strings in another way, learn what one process learns."""
    ours, theirs = trained(method, gentle=True).weights, elsewhere.weights(method)[method.name]
    apart = max((float((theirs[name] - value).abs().max()) for name, value in ours.items()), default=0.0)
    assert apart < tolerance(method), f"two processes learn other weights than one, by {apart:.1e}"


def check_order_in_the_batch_changes_nothing(method: type[Method]) -> None:
    """Its loss is about a set of patients: their order, and the order of groups' names, do not matter."""
    if method.step is not Method.step:
        return
    apart: list[float] = []

    class Turned(method):  # type: ignore[valid-type, misc]
        def loss(self, out: Outputs, batch: Batch) -> Tensor:
            order = torch.arange(len(batch.row)).flip(0)
            turned = Outputs(**{name: value.detach()[order] for name, value in out.tensors().items()})
            other = copy.deepcopy(self)
            loss: Tensor = super().loss(out, batch)
            again = method.loss(other, turned, reordered(batch, order))
            apart.append(abs(loss.item() - again.item()) / max(1.0, abs(loss.item())))
            return loss

    Turned.__module__ = method.__module__
    train(Turned)
    assert max(apart, default=0.0) < 1e-5, "its loss depends on the order of patients in the batch"
    renamed, named = (trained(method, names, "drop", gentle=True) for names in (Renamed, ToyDataset))
    assert difference(renamed, named) < tolerance(method), "what it learns depends on the order of groups' names"


def reordered(batch: Batch, order: Tensor) -> Batch:
    """Return the same patients in another order."""
    attributes = {name: value[order] for name, value in batch.attributes.items()}
    return Batch(batch.row[order], batch.target[order], batch.group[order], attributes, batch.n_groups)


def check_bears_unrecorded_groups(method: type[Method]) -> None:
    """It trains when some, or nearly all, patients' group is not recorded."""
    trained(method, unrecorded="drop")
    train(method, attributes=("site", "sex"), unrecorded="drop", batch_size=2)


def check_bears_absent_groups(method: type[Method]) -> None:
    """It trains when batches are too small to hold every group, and a test patient's group has no training rows."""
    train(method, batch_size=1, stages=(Stage(epochs=0.3, lr=1e-3, warmup=0),))
    train(method, dataset=Newcomers)


def check_bears_other_tasks(method: type[Method]) -> None:
    """It trains in two stages of different parts, in bfloat16, on three classes, and on words where it may."""
    early, needs = Stage("head", ("head",), epochs=0.5, lr=1e-2), method().needs
    train(method, stages=(early, *STAGES))
    learned = train(method, precision="bfloat16").weights
    assert all(value.isfinite().all() for value in learned.values()), "in bfloat16 its weights are not finite"
    if not {"classes", "two classes", "head"} & {*needs}:
        train(method, dataset=Told)
    if not {"two classes", "text"} & {*needs}:
        frame = train(method, dataset=Three).predictions
        assert np.allclose(frame[["p_0", "p_1", "p_2"]].sum(axis=1), 1), "probabilities do not add up to one"


def check_is_plain_where_it_says_so(method: type[Method]) -> None:
    """With the settings in `plain_at` its rows, dropout and weights are plain fine-tuning's, bit by bit."""
    if method.plain_at:
        settings = {"dropout": 0.1}
        ours = train(method, dict(method.plain_at), backbone_settings=settings)
        assert difference(ours, train(Plain, backbone_settings=settings)) == 0, "it is not plain fine-tuning there"


def check_survives_small_memory(method: type[Method]) -> None:
    """When the device runs out of memory the micro-batch is halved, and nothing else changes."""

    class Small(ToyBackbone):
        name = "small-for-comparison"
        fits = 2

    outcome = train(method, backbone=Small, stages=GENTLE)
    same = difference(outcome, trained(method, gentle=True)) < tolerance(method)
    assert same, "a smaller micro-batch changed what it learned"
    if outcome.record.steps:
        assert outcome.record.micro_batch == 2, "the micro-batch was not halved"
        assert any("micro-batch halved" in warning for warning in outcome.record.warnings), "nothing says so"


METHOD_CHECKS: tuple[Callable[[type[Method]], None], ...] = (
    check_says_what_it_does,
    check_uses_every_setting,
    check_trains_and_predicts,
    check_same_bits_twice,
    check_goes_on_after_a_kill,
    check_random_numbers_follow_the_seed,
    check_micro_batches_change_nothing,
    check_takes_one_step_a_batch,
    check_keeps_dropout,
    check_never_reads_the_test_split,
    check_does_not_choose_by_validation,
    check_other_processes_learn_the_same,
    check_order_in_the_batch_changes_nothing,
    check_bears_unrecorded_groups,
    check_bears_absent_groups,
    check_bears_other_tasks,
    check_is_plain_where_it_says_so,
    check_survives_small_memory,
)
