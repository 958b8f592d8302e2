"""Answered patients shown before each question, chosen so that groups and answers are alike among them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from fairbench import Count, FairbenchError, Method, Question, Run, Stage, hookimpl


class Demonstrations(Method):
    """Train nothing: show `shots` answered training patients before each question (in-context learning).

    They are those whose images are most like the patient's, in turn one of each cell of `by`, so that every group
    and answer is shown alike: after FADS (arXiv 2511.15986), which samples within clusters of the training images.
    `none` takes the nearest whoever they are.
    """

    name = "demonstrations"

    shots: Count = 4
    by: Literal["group-class", "class", "none"] = "group-class"
    clusters: Count = 8

    @property
    def needs(self) -> tuple[str, ...]:
        """Classes, where cells are made of them."""
        return () if self.by == "none" else ("classes",)

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Train nothing."""
        return ()

    def setup(self, run: Run) -> None:
        """Refuse a backbone that sees one image at a time."""
        if not run.backbone.takes_several:
            raise FairbenchError(
                f"{self.alias} shows several images, and {run.backbone.alias} takes one",
                "choose a backbone that takes several (docs/backbones.md)",
            )

    def adjust(self, run: Run, validation: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
        """Ask every test patient's question after the demonstrations."""
        chosen = self.chosen(run, len(test))
        shown = [self.shown(run, rows, run.questions[place]) for place, rows in enumerate(chosen)]
        run.facts["example of a question"] = shown[0][1]
        return run.answered(test, shown)

    def chosen(self, run: Run, count: int) -> list[list[int]]:
        """Return for each test row the training rows to show, the most alike last, next to the question."""
        from sklearn.cluster import KMeans  # here, because every command imports all plugins

        known = run.image_features("train", range(len(run.train.target))).double().numpy()
        asked = run.image_features("test", range(count)).double().numpy()
        scale = known.std(axis=0) + 1e-9
        known, asked = known / scale, asked / scale
        kinds = KMeans(min(self.clusters, len(known)), n_init=4, random_state=run.job.seed).fit(known)
        cells = self.cells(run)
        rows = []
        for patient in asked:
            kind = np.linalg.norm(kinds.cluster_centers_ - patient, axis=1).argsort().argsort()[kinds.labels_]
            near = np.lexsort((np.linalg.norm(known - patient, axis=1), kind))  # its own kind of image first
            rows.append(self.balanced(near[cells[near] >= 0], cells)[::-1])
        return rows

    def cells(self, run: Run) -> np.ndarray:
        """Return each training row's cell, (N,), -1 for one that no cell has."""
        if self.by == "none":
            return np.zeros(len(run.train.target), dtype=np.int64)
        return run.train.cells(self.by)[0].numpy()

    def balanced(self, near: np.ndarray, cells: np.ndarray) -> list[int]:
        """Take of rows in order of nearness the first of each cell, then the second of each, and so on."""
        turn = pd.Series(cells[near]).groupby(cells[near]).cumcount().to_numpy()
        return near[np.argsort(turn, kind="stable")][: self.shots].tolist()

    def shown(self, run: Run, rows: list[int], question: Question) -> tuple[tuple, str]:
        """Return the images and the text that ask one question after its demonstrations."""
        before = [run.known[row] for row in rows]
        cases = [
            f"Case {number}: {one.prompt} {self.answer(run, row)}"
            for number, (row, one) in enumerate(zip(rows, before, strict=True), 1)
        ]
        text = "\n".join([*cases, f"Case {len(cases) + 1}: {question.prompt}"])
        return tuple(image for one in (*before, question) for image in one.images), text

    def answer(self, run: Run, row: int) -> str:
        """Return what a training patient's answer is in words."""
        return run.train.references[row] if run.train.references else run.words[int(run.train.target[row])]


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [Demonstrations]
