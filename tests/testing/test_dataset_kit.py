"""The kit for datasets: each kind of fault is caught by the check that names it, and nobody is falsely accused."""

import itertools
import os

import numpy as np
import pytest
from builders import kit_checks, mutants
from PIL import Image

from fairbench.data.dataset import digest, rows
from fairbench.testing import DATASET_CHECKS, ToyDataset
from fairbench.testing import datasets as kit

CALLS = itertools.count()


class Base(ToyDataset):
    """A dataset for this test."""

    name = "mine"

    def image(self, row):
        generator = np.random.default_rng(int(str(row["id"])[1:]))
        return Image.fromarray(generator.integers(0, 255, (4, 4, 3), dtype=np.uint8))


class Untitled(Base):
    title = ""


class AsksNothing(Base):
    prompt: str = " "


class GrowsWithEachReading(Base):
    def table(self):
        table = super().table()
        return table.assign(sex=np.roll(table["sex"], next(CALLS)))


class NoTestRows(Base):
    rows_per_split = (96, 24, 0)


class NoValidationRows(Base):
    rows_per_split = (96, 0, 24)


class OneClassTest(Base):
    def table(self):
        table = super().table()
        return table[(table["split"] != "test") | (table["target"] == "dark")]


class OneClassTraining(Base):
    def table(self):
        table = super().table()
        return table[(table["split"] != "train") | (table["target"] == "dark")]


class NobodysSexInTest(Base):
    def table(self):
        table = super().table()
        return table.assign(sex=table["sex"].where(table["split"] != "test"))


class RowsAsASetHoldsThem(Base):
    def table(self):
        table = super().table().set_index("id", drop=False)
        return table.loc[list({*table["id"]})]


class FingerprintByProcess(Base):
    def fingerprint(self):
        return f"{os.getpid():016x}"


class FingerprintByHash(Base):
    def fingerprint(self):
        return f"{hash('toy') & 0xFFFF:016x}"


class FingerprintForGood(Base):
    def fingerprint(self):
        return "version-1"


class FingerprintOfTheSettings(Base):
    folder = "a folder"

    def fingerprint(self):
        return str(self.settings())


class FingerprintOfThePrompt(Base):
    def fingerprint(self):
        return self.prompt


class FingerprintOfTheRows(Base):
    def fingerprint(self):
        return digest(rows(self))


class Grey(Base):
    def image(self, row):
        return super().image(row).convert("L")


class APath(Base):
    def image(self, row):
        return f"{row['id']}.png"


class DrawnAtRandom(Base):
    def image(self, row):
        return Image.fromarray(np.random.randint(0, 255, (4, 4, 3), dtype=np.uint8))


class DrawnFromTheTarget(Base):
    def image(self, row):
        return Image.new("RGB", (4, 4), (40 if row["target"] == "dark" else 210,) * 3)


class DrawnFromTheGroup(Base):
    def image(self, row):
        return Image.new("RGB", (4, 4), (40 if row["sex"] == "female" else 210,) * 3)


class OneImageForAll(Base):
    def image(self, row):
        return Image.new("RGB", (4, 4))


class TriedOnTrainingImages(Base):
    def image(self, row):
        return super().image({**row, "id": f"r{int(row['id'][1:]) % 48}"})


class IdHoldsTheAnswer(Base):
    def table(self):
        table = super().table()
        return table.assign(id=table["target"] + "/" + table["id"])


class PromptHoldsTheAnswer(Base):
    def table(self):
        table = super().table()
        return table.assign(prompt="A " + table["target"] + " square?")


MUTANTS = [
    (Untitled, kit.check_says_what_it_is, "has no title"),
    (AsksNothing, kit.check_says_what_it_is, "no question"),
    (GrowsWithEachReading, kit.check_rows_keep_the_contract, "two tables"),
    (NoTestRows, kit.check_every_split_can_be_used, "no row is of split test"),
    (NoValidationRows, kit.check_every_split_can_be_used, "no row is of split val"),
    (OneClassTest, kit.check_every_split_can_be_used, "split test has no row of class bright"),
    (OneClassTraining, kit.check_every_split_can_be_used, "split train has no row of class bright"),
    (NobodysSexInTest, kit.check_every_split_can_be_used, "sex is known for nobody in split test"),
    (RowsAsASetHoldsThem, kit.check_order_and_fingerprint_are_the_same_elsewhere, "reads its rows differently"),
    (FingerprintByProcess, kit.check_order_and_fingerprint_are_the_same_elsewhere, "from process to process"),
    (FingerprintByHash, kit.check_order_and_fingerprint_are_the_same_elsewhere, "from process to process"),
    (FingerprintForGood, kit.check_fingerprint_follows_the_content, "the same with another question"),
    (FingerprintOfThePrompt, kit.check_fingerprint_follows_the_content, "the same with fewer rows"),
    (FingerprintOfTheRows, kit.check_fingerprint_follows_the_content, "the same with another question"),
    (FingerprintOfTheSettings, kit.check_fingerprint_follows_the_content, "the same with another target"),
    (Grey, kit.check_images_are_rgb, "is L, not RGB"),
    (APath, kit.check_images_are_rgb, "is a str"),
    (DrawnAtRandom, kit.check_an_image_is_its_rows_own, "each time it is opened"),
    (DrawnFromTheTarget, kit.check_an_image_is_its_rows_own, "depends on its row's answer"),
    (DrawnFromTheGroup, kit.check_an_image_is_its_rows_own, "depends on its row's answer or groups"),
    (OneImageForAll, kit.check_images_are_not_all_alike, "all images are the same"),
    (TriedOnTrainingImages, kit.check_images_are_not_all_alike, "test images are training images"),
    (IdHoldsTheAnswer, kit.check_the_question_does_not_tell_the_answer, "the column id tells the answer"),
    (PromptHoldsTheAnswer, kit.check_the_question_does_not_tell_the_answer, "the column prompt tells the answer"),
]


@pytest.mark.parametrize(("dataset", "check", "fault"), mutants(MUTANTS))
def test_a_fault_is_named(dataset, check, fault):
    with pytest.raises(AssertionError, match=fault):
        check(dataset())


def test_every_check_of_a_dataset_is_proven():
    assert {check for _, check, _ in MUTANTS} == {*DATASET_CHECKS}


class AsksBoth(Base):
    """Its questions and its ids name both answers."""

    def table(self):
        table = super().table()
        return table.assign(prompt="Is it dark or bright?", id="dark-or-bright-" + table["id"])

    def image(self, row):
        return super().image({**row, "id": "r" + row["id"].rpartition("r")[2]})


@pytest.mark.parametrize("check", kit_checks(DATASET_CHECKS))
def test_nobody_is_falsely_accused(check):
    check(AsksBoth())


def test_a_class_that_no_other_process_can_find_is_told_so():
    class Local(Base):
        """Defined inside a function."""

    with pytest.raises(AssertionError, match="top of a module"):
        kit.check_order_and_fingerprint_are_the_same_elsewhere(Local())
