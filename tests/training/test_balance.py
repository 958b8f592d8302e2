"""Weights and means of groups, against literal loops and against every batch that can be drawn."""

import itertools

import numpy as np
import pytest
import torch

from fairbench import Batch, FairbenchError, GroupMeans, InverseFrequency, Rows

GROUP = [0, 0, 0, 1, 1, 2, -1]
TARGET = [0, 1, 1, 0, 0, 1, 0]
CAP = 3.0  # cuts the weight of the group of one patient
READINGS = ("per-sample", "equation", "micro-mean", "group-mean")


def rows(classes=("no", "yes")):
    return Rows(torch.tensor(TARGET), torch.tensor(GROUP), ("a", "b", "c"), {}, {}, classes)


def batch_of(row):
    row = torch.tensor(row)
    return Batch(row, torch.tensor(TARGET)[row], torch.tensor(GROUP)[row], {}, 3)


def cell_of(row, by):
    group, target = GROUP[row], TARGET[row]
    return None if group < 0 else (group, target if by == "group-class" else 0)


def literal(losses, chosen, by, reading):
    """Eq. 8 in each reading, un-normalised, written out row by row."""
    members = [cell_of(row, by) for row in range(len(GROUP))]
    known = sum(cell is not None for cell in members)
    weight = {cell: min(known / members.count(cell), CAP) for cell in set(members) - {None}}
    if reading == "per-sample":
        weight[None] = sum(weight[cell] for cell in members if cell) / known
        return sum(weight[cell_of(row, by)] * losses[row] for row in chosen) / len(chosen)
    if reading == "equation":
        terms = {cell: w * len(members) / members.count(cell) for cell, w in weight.items()} | {None: 0.0}
        return sum(terms[cell_of(row, by)] * losses[row] for row in chosen) / len(chosen)
    size = 2 if reading == "micro-mean" else len(chosen)
    pieces = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    total = 0.0
    for piece in pieces:
        for cell, w in weight.items():
            own = [losses[row] for row in piece if cell_of(row, by) == cell]
            total += w * float(np.mean(own)) if own else 0.0
    return total / len(pieces)


@pytest.mark.parametrize("by", ["group", "group-class"])
@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_is_what_its_equation_says_and_averages_one(reading, by):
    """Over every ordered batch of four different rows, so that sampling, not a sample, is tested."""
    losses = torch.rand(len(GROUP), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain = InverseFrequency(rows(), by, CAP, reading, False, 4)
    scaled = InverseFrequency(rows(), by, CAP, reading, True, 4)
    ones, ours = [], []
    for chosen in itertools.permutations(range(len(GROUP)), 4):
        batch = batch_of(list(chosen))
        ours.append(plain(losses[batch.row], batch).item())
        ones.append(scaled(torch.ones(4, dtype=torch.float64), batch).item())
        if len(ours) % 50 == 1:
            assert ours[-1] == pytest.approx(literal(losses.tolist(), list(chosen), by, reading), rel=1e-6)
    assert np.mean(ones) == pytest.approx(1, rel=1e-6)
    expectation = 0.0
    cells = [cell_of(row, by) for row in range(len(GROUP))]
    for cell in set(cells) - {None}:
        own = [losses[row].item() for row in range(len(GROUP)) if cells[row] == cell]
        expectation += min(6 / len(own), CAP) * np.mean(own)
    unbiased = np.mean(ours) == pytest.approx(expectation, rel=1e-6)
    assert unbiased == (reading == "equation"), "eq. 8 is an expectation, and one reading estimates it"


def test_a_shorter_last_batch_and_single_rows_have_a_loss():
    for reading in READINGS:
        weighted = InverseFrequency(rows(), "group", CAP, reading, True, 4)
        for chosen in ([5], [6], [1, 4, 6]):
            assert weighted(torch.ones(len(chosen)), batch_of(chosen)).isfinite()


def test_classes_are_needed_to_weigh_by_them():
    with pytest.raises(FairbenchError, match="no classes to balance by group-class"):
        InverseFrequency(rows(()), "group-class", CAP, "per-sample", True, 4)


def test_cells_are_named_and_numbered():
    cell, names = rows().cells("group-class")
    assert [None if c < 0 else names[c] for c in cell.tolist()][:4] == ["a×no", "a×yes", "a×yes", "b×no"]
    assert cell[6] == -1


def test_the_gradient_of_a_remembered_mean_is_unbiased():
    """Averaged over every batch of three it is that of the group's mean over all rows."""
    values = torch.rand(len(GROUP), dtype=torch.float64, requires_grad=True)
    odds = torch.tensor([3, 2, 1]) / len(GROUP)
    gradients = []
    for chosen in itertools.combinations(range(len(GROUP)), 3):
        batch = batch_of(list(chosen))
        means = GroupMeans(odds, 5)(values[batch.row], batch)
        gradients.append([torch.autograd.grad(mean, values, retain_graph=True)[0] for mean in means])
    for group in range(3):
        average = torch.stack([each[group] for each in gradients]).mean(0)
        wanted = torch.tensor([1 / GROUP.count(group) if g == group else 0.0 for g in GROUP])
        torch.testing.assert_close(average, wanted.double())


def test_a_remembered_mean_forgets_slowly_and_no_memory_is_the_batch():
    means, total, count = GroupMeans(torch.tensor([0.5, 0.25, 0.0]), 4), np.zeros(3), np.zeros(3)
    for chosen in ([0, 1, 4], [2, 3, 6], [5, 0, 1], [4, 0, 6]):
        batch = batch_of(chosen)
        values = torch.rand(3, requires_grad=True)
        total, count = 0.75 * total, 0.75 * count
        for value, row in zip(values.tolist(), chosen, strict=True):
            if GROUP[row] >= 0:
                total[GROUP[row]] += value
                count[GROUP[row]] += 1
        ours, wanted = means(values, batch), total / np.where(count, count, np.nan)
        assert ours.tolist() == pytest.approx(wanted.tolist(), nan_ok=True)
    ours.nansum().backward()
    assert values.grad.isfinite().all()
    torch.testing.assert_close(GroupMeans(means.odds, 0)(values, batch), batch.by_group(values), equal_nan=True)
