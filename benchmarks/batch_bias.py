"""Show what happens to a statement about groups when a batch stands for the data.

    python benchmarks/batch_bias.py [--batches 4000]

The first table gives, for every reading of eq. 8 (arXiv 2512.03477), each group's share of the loss's weight, how
much more a patient of the rarest group weighs than one of the commonest, and as how many patients a batch
trains: (Σw)²/Σw² over all batches, for each. The second gives, for losses that compare groups within a batch,
what they see and which group they push, with the batch's own means and with a memory; the third where
group-dro's weights end without balanced drawing. Groups are the paper's; batches are drawn as in training.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch

from fairbench import Batch, GroupMeans, InverseFrequency, Rows

N, CAP, MEMORY = 7000, 10.0, 50
PAPER = {  # arXiv 2512.03477, section 4
    "ethnicity": {"non-hispanic": 0.903, "hispanic": 0.043, "unknown": 0.054},
    "race": {"white": 0.769, "black": 0.149, "asian": 0.082},
}
READINGS = ("per-sample", "equation", "micro-mean", "group-mean")


def rows_of(shares: dict[str, float]) -> Rows:
    """Return training rows in exactly these proportions."""
    counts = torch.tensor([round(N * share) for share in shares.values()])
    group = torch.arange(len(counts)).repeat_interleave(counts)
    return Rows(torch.zeros_like(group), group, tuple(shares), {}, {}, ("no", "yes"))


def batches(rows: Rows, size: int, count: int) -> Iterator[Batch]:
    """Draw batches of different rows, epoch after epoch."""
    generator = np.random.default_rng(0)
    while count > 0:
        order = torch.from_numpy(generator.permutation(len(rows.group)))
        for row in order.split(size)[: min(count, len(order) // size)]:
            yield Batch(row, rows.target[row], rows.group[row], {}, len(rows.groups))
            count -= 1


def readings(count: int) -> None:
    """Print the first table."""
    print("| attribute | reading | batch | share of each group (%) | rarest : commonest | effective patients |")
    print("| --- | --- | ---: | --- | ---: | ---: |")
    for attribute, shares in PAPER.items():
        rows = rows_of(shares)
        for reading in READINGS:
            for size in (8,) if reading != "group-mean" else (2, 8, 96):
                weighted = InverseFrequency(rows, "group", CAP, reading, True, size)
                total, squares = torch.zeros(len(shares)), 0.0
                for batch in batches(rows, size, count):
                    multipliers = weighted.multipliers(batch.row)
                    total += torch.zeros(len(shares)).index_add(0, batch.group, multipliers)
                    squares += float(multipliers.square().sum())
                share = 100 * total / total.sum()
                effective = float(total.sum()) ** 2 / squares / count
                each = total / rows.counts
                ratio = each[rows.counts.argmin()] / each[rows.counts.argmax()]
                written = " / ".join(f"{value:.1f}" for value in share)
                print(f"| {attribute} | {reading} | {size} | {written} | {ratio:.0f} | {effective:.1f} |")


def comparisons(count: int, size: int = 8) -> None:
    """Print the second table: p(true answer) differs from patient to patient, and in the last line by group too."""
    print(
        "| attribute | rarest group's accuracy | gap: true | in a batch | memory | "
        "loss variance: true | in a batch | memory | worst group found (%): batch | memory |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for attribute, shares in PAPER.items():
        rows = rows_of(shares)
        rarest = int(rows.counts.argmin())
        for lower in (0.0, 0.1):
            generator = np.random.default_rng(1)
            level = np.where(rows.group.numpy() == rarest, 0.8 - lower, 0.8)
            p = torch.from_numpy(generator.beta(4 * level, 4 * (1 - level))).clamp_min(1e-3)
            seen: dict[str, list[float]] = {}
            truth = GroupMeans(torch.ones(len(shares)), 0)
            everybody = Batch(torch.arange(N), rows.target, rows.group, {}, len(shares))
            right: dict[int, list[float]] = {0: [], MEMORY: []}
            for memory in (0, MEMORY):
                accuracy, loss = (GroupMeans(rows.counts / N, memory) for _ in range(2))
                for batch in batches(rows, size, count):
                    means, losses = accuracy(p[batch.row], batch), loss(-p[batch.row].log(), batch)
                    known = ~means.isnan()
                    gap = means[known].max() - means[known].min()
                    seen.setdefault(f"gap {memory}", []).append(gap.item())
                    seen.setdefault(f"variance {memory}", []).append(losses[known].var(correction=0).item())
                    right[memory].append(float(losses.nan_to_num(-1).argmax() == rarest))
            exact, exact_loss = truth(p, everybody), truth(-p.log(), everybody)
            mean = {name: np.mean(values) for name, values in seen.items()}
            print(
                f"| {attribute} | {'the same' if not lower else '10 points lower'} "
                f"| {100 * (exact.max() - exact.min()):.1f} | {100 * mean['gap 0']:.1f} "
                f"| {100 * mean[f'gap {MEMORY}']:.1f} | {exact_loss.var(correction=0):.3f} "
                f"| {mean['variance 0']:.3f} | {mean[f'variance {MEMORY}']:.3f} "
                f"| {100 * np.mean(right[0]):.0f} | {100 * np.mean(right[MEMORY]):.0f} |"
            )


def unbalanced(steps: int = 2625, step_size: float = 0.01, size: int = 8) -> None:
    """Print where group-dro's q ends without balanced drawing when all groups lose alike, 0.5 nats."""
    print("| attribute | q of each group at the end (%): batch | memory |\n| --- | --- | --- |")
    for attribute, shares in PAPER.items():
        rows, ends = rows_of(shares), []
        for memory in (0, MEMORY):
            means, log_q = GroupMeans(rows.counts / N, memory), torch.zeros(len(shares))
            for batch in batches(rows, size, steps):
                log_q = log_q + step_size * means(torch.full((size,), 0.5), batch).nan_to_num(0.0)
            ends.append(" / ".join(f"{100 * q:.1f}" for q in log_q.softmax(0)))
        print(f"| {attribute} | {ends[0]} | {ends[1]} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=4000)
    count = parser.parse_args().batches
    readings(count)
    print()
    comparisons(count)
    print()
    unbalanced()


if __name__ == "__main__":
    main()
