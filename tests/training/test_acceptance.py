"""Rows that a backbone cannot take: named before training, left out as long as they are few."""

import numpy as np
import pytest
from builders import noise, people, write_dataset
from fairbench_plugins.methods.vanilla import Vanilla

from fairbench import FairbenchError, ImageFolder
from fairbench.data.dataset import rows
from fairbench.testing import toys
from fairbench.training.acceptance import accepted, refused


class Narrow(toys.ToyBackbone):
    """Takes no image wider than 30 pixels, as a processor with its own rule would not."""

    name = "narrow"

    def prepare_images(self, images, prompt):
        if any(image.width > 30 for image in images):
            raise ValueError("aspect ratio must be\nsmaller")
        return super().prepare_images(images, prompt)


def ward(folder, share=0.0, **facts):
    class Ward(ImageFolder):
        name, title, licence, citation = "ward", "Ward", "CC0", "nobody"
        classes, attributes = ("no", "yes"), {"sex": ("female", "male")}
        prompt: str = "Well?"

        def table(self):
            frame = people().drop(columns="age")
            return self.readable(frame.assign(**{key: value for key, value in facts.items() if key != "task"}))

    Ward.folder, Ward.task = None, facts.get("task", "classify")
    real = Ward.__init__

    def placed(self, **settings):
        real(self, **settings)
        self.root = folder

    Ward.__init__ = placed
    return Ward, {"unreadable_share": share}


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path, people())
    noise(7, (40, 3)).save(tmp_path / "7.png")
    return tmp_path


def loaded(kind=Narrow):
    backbone = kind()
    backbone.load_preprocessing()
    return backbone


@pytest.mark.parametrize("verify", ["decode", "structure"])
def test_an_image_that_no_processor_takes_is_named_with_its_size(folder, verify):
    kind, settings = ward(folder)
    dataset = kind(**settings, verify=verify)
    faults = refused(dataset, rows(dataset), loaded())
    assert faults == {"i007": "7.png, 40×3 pixels: ValueError: aspect ratio must be smaller"}
    with pytest.raises(
        FairbenchError, match=r"narrow cannot take 1 of 40 rows of ward: i007 \(7\.png, 40×3 .*0\.00%"
    ):
        accepted(dataset, rows(dataset), loaded())
    dataset.unreadable_share = 0.03
    table, said = accepted(dataset, rows(dataset), loaded())
    assert table["id"].tolist() == [name for name in rows(dataset)["id"] if name != "i007"]
    assert said == ["narrow cannot take 1 of 40 rows of ward: i007 (7.png, 40×3 pixels: ValueError: aspect ratio "
                    "must be smaller): left out"]  # fmt: skip


def test_each_size_is_tried_once(folder, monkeypatch):
    kind, settings = ward(folder)
    sizes, real = [], Narrow.prepare_images

    def watched(self, images, prompt):
        sizes.extend(image.size for image in images)
        return real(self, images, prompt)

    monkeypatch.setattr(Narrow, "prepare_images", watched)
    dataset = kind(**settings)
    refused(dataset, rows(dataset), loaded())
    assert sorted(sizes) == [(8, 6), (40, 3)]


def test_the_images_own_token_in_a_question_or_an_answer_is_found(folder):
    noise(7).save(folder / "7.png")
    asked = ["Findings?"] * 39 + ["Look at <image>"]
    told = ["none"] * 3 + ["see <image> above"] + ["none"] * 36
    kind, settings = ward(folder, prompt=asked, reference=told, task="generate")
    dataset = kind(**settings)
    faults = refused(dataset, rows(dataset), loaded(toys.ToyBackbone))
    assert faults == {
        "i003": "3.png, reference: it holds the token that stands for the image",
        "i039": "39.png, prompt: it holds the token that stands for the image",
    }


def test_a_job_leaves_few_such_rows_out_and_stops_at_many(folder):
    kind, settings = ward(folder, share=0.03)
    outcome = toys.train(Vanilla, backbone=Narrow, dataset=kind, dataset_settings=settings, attributes=("sex",))
    assert outcome.record.error is None
    assert [text for text in outcome.record.warnings if "i007 (7.png" in text]
    assert len(outcome.predictions) == 19, "40 rows, half of them for training; i007 was of the test"
    assert not np.isin("i007", outcome.predictions["id"])
    kind, settings = ward(folder)
    with pytest.raises(AssertionError, match=r"narrow cannot take 1 of 40 rows of ward: i007 \(7\.png"):
        toys.train(Vanilla, backbone=Narrow, dataset=kind, dataset_settings=settings, attributes=("sex",))
