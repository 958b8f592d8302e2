"""FairTune: search which LoRA blocks to train, by what validation says of the groups."""

import re
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from fairbench import Count, FairbenchError, Method, Predictions, Range, Run, Stage, hookimpl


class FairTune(Method):
    """Choose a mask over LoRA blocks by Bayesian search on the validation split, then train with the best mask
    from scratch (Dutt et al. 2024, arXiv 2310.05055: the outer loop of eq. 2, its inner loop being plain training).

    A masked block stays as it is loaded. `units`: a block is a decoder layer, or one projection of one layer.
    `objective`: the worst group's accuracy (the paper's default), minus the largest gap between groups, or
    the overall accuracy; of free text, minus the loss takes accuracy's place. Each of `trials` trainings lasts
    a `share` of the stages. Learning rates are the benchmark's, while the paper searches them too.
    """

    name = "fairtune"
    trials: Count = 5
    share: Annotated[float, Range(0, 1, above=True)] = 0.5
    units: Literal["layer", "projection"] = "layer"
    objective: Literal["worst-group", "gap", "overall"] = "worst-group"

    def plan(self, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Everybody's stages, shortened, once for each trial; then in full."""
        self.length = len(stages)
        trials = [
            replace(stage.share(self.share), name=f"trial {number + 1}: {stage.name}")
            for number in range(self.trials)
            for stage in stages
        ]
        return (*trials, *stages)

    def setup(self, run: Run) -> None:
        """Open the search. Raises FairbenchError where optuna is not installed or there is no LoRA to mask."""
        try:
            import optuna
        except ImportError as error:
            raise FairbenchError("fairtune searches with optuna", "pip install 'fairbench[search]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=run.job.seed)
        )
        blocks = {self.block(name) for name in run.backbone.trainable()} - {None}
        self.blocks = sorted(blocks, key=lambda block: [int(x) if x.isdigit() else x for x in block.split()])
        if not self.blocks:
            raise FairbenchError("fairtune masks blocks of LoRA, and this backbone has none")
        run.tried = self.trials

    def block(self, name: str) -> str | None:
        """Return which block a parameter belongs to, None for what is no LoRA."""
        match = re.search(r"\.layers\.(\d+)\..*?(\w+)\.lora_", f".{name}")
        return None if match is None else match[1] if self.units == "layer" else f"{match[1]} {match[2]}"

    def start_stage(self, run: Run) -> Tensor | None:
        """At the start of a trial, judge the last, forget it, and choose the next mask; at the end, the best."""
        number, place = divmod(run.stage_number, self.length)
        if place == 0:
            if number:
                self.study.tell(self.trial, self.worth(run.answers("val"), run))
                run.restart()
            if number < self.trials:
                self.mask = self._ask()
            else:
                best = self.study.best_trial
                self.mask = {block for block, kept in best.params.items() if kept}
                run.facts["mask"] = sorted(self.mask)
                run.facts["trials"] = [trial.value for trial in self.study.trials if trial.value is not None]
        run.only(lambda name: self.block(name) in {None, *self.mask})
        return None

    def _ask(self) -> set[str]:
        """Draw a mask that keeps some block."""
        while True:
            self.trial = self.study.ask()
            kept = {block for block in self.blocks if self.trial.suggest_categorical(block, [True, False])}
            if kept:
                return kept
            self.study.tell(self.trial, state=self._failed())

    def _failed(self) -> object:
        from optuna.trial import TrialState

        return TrialState.FAIL

    def worth(self, predictions: Predictions, run: Run) -> float:
        """Return the objective on the validation split; more is better."""
        by_class = "target" in predictions.table
        score = predictions.answer == predictions.target if by_class else -predictions.table["loss"].to_numpy()
        if self.objective == "overall":
            return float(np.mean(score))
        codes, names = predictions.groups("+".join(run.job.attributes), run.job.unrecorded)
        means = [score[codes == code].mean() for code in range(len(names))]
        return float(min(means) if self.objective == "worst-group" else min(means) - max(means))


@hookimpl
def fairbench_methods() -> list[type[Method]]:
    """Offer the method."""
    return [FairTune]
