"""The kit for backbones: each kind of fault is caught by the check that names it."""

import pytest
import torch
from builders import mutants

from fairbench.testing import BACKBONE_CHECKS, ToyBackbone
from fairbench.testing import backbones as kit


class Base(ToyBackbone):
    """A backbone for this test."""

    name = "mine"


class Blind(Base):
    def prepare(self, image, prompt):
        inputs = super().prepare(image, prompt)
        return {**inputs, "pixel_values": torch.zeros_like(inputs["pixel_values"])}


class Deaf(Base):
    def prepare(self, image, prompt):
        return super().prepare(image, "Well?")


class OtherWeightsEachTime(Base):
    def load(self, dtype):
        super().load(dtype)
        torch.nn.init.normal_(self.model["eye"].weight)


class OtherWeightsByHash(Base):
    def load(self, dtype):
        super().load(dtype)
        with torch.no_grad():
            self.model["eye"].weight.mul_(1 + (hash("eye") % 9973) / 9973)


class NameByHash(Base):
    def fingerprint(self):
        return f"toy-{hash('toy')}"


class OverflowsInHalf(Base):
    def embed(self, inputs, features):
        embedded = super().embed(inputs, features)
        return embedded * torch.inf if embedded.dtype == torch.bfloat16 else embedded


class ReadsPadding(Base):
    def decode(self, inputs, features, every=False):
        return super().decode(
            {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}, features, every
        )


class SeesMoreWithoutCache(Base):
    def features(self, inputs):
        return super().features(inputs) * (1.5 if "pixel_values" in inputs else 1.0)


class MixesNeighbours(Base):
    def encode(self, inputs):
        features = super().encode(inputs)
        return features + features.mean(0)


class TrainsItsEye(Base):
    def encode(self, inputs):
        weight = next(p for name, p in self.named_parameters() if "lora_A" in name)
        return super().encode(inputs) * (1 + weight.sum().detach())


class OneFeatureInTheText(Base):
    def embed(self, inputs, features):
        embedded = super().embed(inputs, features)
        last = torch.zeros_like(embedded)
        last[:, -1] = features[-1]
        return embedded + last


class BeginsAfterTheFirstLayer(Base):
    def decode(self, inputs, features, every=False):
        hidden = super().decode(inputs, features, every)
        return [hidden[1], *hidden[1:]] if every else hidden


class UnfreezesTheEye(Base):
    def build(self, *arguments, **named):
        built = super().build(*arguments, **named)
        self.model["eye"].requires_grad_(True)
        return built


class ForgetsNothing(Base):
    def reset(self, seed):
        if not getattr(self, "begun", False):
            super().reset(seed)
        self.begun = True


class SameForEverySeed(Base):
    def reset(self, seed):
        super().reset(0)


class ReadsTheWrongWord(Base):
    def vocabulary_scores(self, hidden):
        return super().vocabulary_scores(hidden).roll(len(hidden), -1)


class WritesByNeighbours(Base):
    def generate(self, inputs, *more, **named):
        return [text + str(len(inputs["input_ids"])) for text in super().generate(inputs, *more, **named)]


class LosesUmlauts(Base):
    def tokenise(self, text):
        return super().tokenise(text.encode("ascii", "ignore").decode())


class EndsWhatItTokenises(Base):
    def tokenise(self, text):
        return [*super().tokenise(text), self.end_token_id]


MUTANTS = [
    (Blind, kit.check_reads_image_and_prompt, "does not see them"),
    (Deaf, kit.check_reads_image_and_prompt, "does not read them"),
    (OtherWeightsEachTime, kit.check_fingerprint_names_the_weights, "built twice"),
    (OtherWeightsByHash, kit.check_fingerprint_names_the_weights, "another process builds other weights"),
    (NameByHash, kit.check_fingerprint_names_the_weights, "another process"),
    (OverflowsInHalf, kit.check_computes_in_bfloat16, "not finite"),
    (ReadsPadding, kit.check_padding_changes_nothing, "padding .* changes scores"),
    (SeesMoreWithoutCache, kit.check_seeing_once_is_enough, "other scores than the image"),
    (MixesNeighbours, kit.check_features_are_each_images_own, "depend on the others in its batch"),
    (TrainsItsEye, kit.check_features_are_each_images_own, "depend on what is trained"),
    (OneFeatureInTheText, kit.check_image_tokens_carry_the_image, "no image tokens"),
    (BeginsAfterTheFirstLayer, kit.check_states_are_where_they_say, "not the embeddings"),
    (UnfreezesTheEye, kit.check_only_the_language_model_is_adapted, "eye.* is trained"),
    (ForgetsNothing, kit.check_reset_forgets, "does not forget"),
    (SameForEverySeed, kit.check_reset_forgets, "seeds make no difference"),
    (ReadsTheWrongWord, kit.check_words_read_the_vocabulary, "scores are others"),
    (WritesByNeighbours, kit.check_writing_depends_on_the_example_alone, "neighbours change an answer"),
    (LosesUmlauts, kit.check_text_survives_the_tokenizer, "is read back as"),
    (EndsWhatItTokenises, kit.check_text_survives_the_tokenizer, "holds the special token"),
]


@pytest.mark.parametrize(("backbone", "check", "fault"), mutants(MUTANTS))
def test_a_fault_is_named(backbone, check, fault):
    with pytest.raises(AssertionError, match=fault):
        check(backbone)


def test_every_check_of_a_backbone_is_proven():
    assert {check for _, check, _ in MUTANTS} == {*BACKBONE_CHECKS}
