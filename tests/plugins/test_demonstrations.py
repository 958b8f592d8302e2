"""Demonstrations are near, balanced and in order; what is asked is what the model is asked."""

import numpy as np
import pytest
import torch

from fairbench import plugins
from fairbench.testing import ToyBackbone, ToyDataset, train

METHODS = plugins.load(("method",)).tables["method"]


SEEN = {}  # by Spied: no class may keep what the next job would find


class Spied(METHODS["demonstrations"]):
    """It keeps what it saw."""

    name = "spied"

    def adjust(self, run, validation, test):
        result = super().adjust(run, validation, test)
        SEEN.update(
            chosen=self.chosen(run, len(test)),
            known=run.image_features("train", range(len(run.train.target))).double().numpy(),
            asked=run.image_features("test", range(len(test))).double().numpy(),
            shown=[self.shown(run, rows, run.questions[n]) for n, rows in enumerate(self.chosen(run, len(test)))],
        )
        return result


Spied.__module__ = METHODS["demonstrations"].__module__
TRAIN = ToyDataset().table().query("split == 'train'").fillna("?").reset_index(drop=True)
TEST = ToyDataset().table().query("split == 'test'").reset_index(drop=True)


@pytest.mark.parametrize("shots", [4, 7])
def test_each_cell_is_shown_in_turn_by_its_nearest_patient(shots):
    outcome = train(Spied, {"shots": shots, "clusters": 1}, backbone_settings={"readout": "words"})
    known, asked = (SEEN[name] for name in ("known", "asked"))
    apart = np.linalg.norm((known[None] - asked[:, None]) / (known.std(axis=0) + 1e-9), axis=2)
    for place, rows in enumerate(SEEN["chosen"]):
        taken, cells = [], {}
        for row in apart[place].argsort(kind="stable"):
            cells.setdefault((TRAIN["site"][row], TRAIN["target"][row]), []).append(row)
        for turn in range(len(TRAIN)):
            more = [members[turn] for members in cells.values() if turn < len(members)]
            taken += sorted(more, key=lambda row: (apart[place][row], row))
        assert rows[::-1] == taken[:shots]
    assert len({(TRAIN["site"][row], TRAIN["target"][row]) for row in SEEN["chosen"][0]}) == min(shots, len(cells))
    assert outcome.record.steps == 0
    assert outcome.record.facts["example of a question"].startswith("Case 1: Bright? ")


def test_the_model_is_asked_what_stands_in_the_record():
    """The predictions are those of a fresh backbone asked by hand, demonstrations and all."""
    outcome = train(Spied, {"shots": 2, "by": "none"}, backbone_settings={"readout": "words"})
    model = ToyBackbone(readout="words")
    model.build(("dark", "bright"), ("dark", "bright"), torch.float32, torch.device("cpu"))
    data = ToyDataset()
    found = outcome.predictions.query("split == 'test'")
    for place in range(5):
        rows = SEEN["chosen"][place]
        cases = [f"Case {n}: Bright? {TRAIN['target'][row]}" for n, row in enumerate(rows, 1)]
        text = "\n".join([*cases, "Case 3: Bright?"])
        images = [data.image(row) for row in (*TRAIN.loc[rows].to_dict("records"), TEST.loc[place].to_dict())]
        assert [image.tobytes() for image in SEEN["shown"][place][0]] == [image.tobytes() for image in images]
        with torch.no_grad():
            scores = model(model.stack([model.prepare_images(images, text)]), torch.tensor([-1])).scores.softmax(-1)
        assert found["p_1"].iloc[place] == pytest.approx(scores[0, 1].item(), abs=1e-6)


def test_an_instruction_stands_before_each_question():
    settings = {"readout": "words"}
    plain = train(METHODS["zero-shot"], backbone_settings=settings).predictions.query("split == 'test'")
    told = train(METHODS["debiased-prompt"], attributes=("site", "sex"), backbone_settings=settings)
    said = "Judge by what the image shows. Do not let the patient's site and sex influence the answer. Bright?"
    assert told.record.facts["example of a question"] == said
    assert not np.allclose(told.predictions.query("split == 'test'")["p_1"], plain["p_1"])
    braces = train(METHODS["debiased-prompt"], {"instruction": "{no} {attributes}:"}, backbone_settings=settings)
    assert braces.record.facts["example of a question"] == "{no} site: Bright?", "other braces stay as they are"
    same = train(METHODS["debiased-prompt"], {"instruction": ""}, backbone_settings=settings)
    assert np.allclose(same.predictions.query("split == 'test'")["p_1"], plain["p_1"], atol=1e-6)
