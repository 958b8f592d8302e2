"""Answers in words: what is learned, what is written and what is kept, against loops that share no code with it."""

import pandas as pd
import pytest
import torch
from builders import sampled
from PIL import Image
from transformers.loss.loss_utils import ForCausalLMLoss

from fairbench import Method, Stage, plugins
from fairbench.predictions.predictions import UNPARSED
from fairbench.testing.toys import TOLERANCE, ToyBackbone, ToyDataset, difference, train
from fairbench.training import predict as predicting

METHODS = {n: m for n, m in plugins.load(("method",)).tables["method"].items() if n not in ("adapter", "endpoint")}
BACKBONES = plugins.load(("backbone",)).tables["backbone"]
LEARN = (Stage(epochs=8, lr=2e-2, warmup=2),)


class Writer(ToyBackbone):
    """The toy, sure enough of its tokens that one of them can be likely."""

    name = "writer"
    rank = 8
    alpha = 16.0

    def vocabulary_scores(self, hidden):
        return 40 * super().vocabulary_scores(hidden)


class Squares(ToyDataset):
    """Squares to be called dark or bright, in so many words."""

    name = "squares"
    task = "generate"
    max_new_tokens = 12
    prompt = "Bright?"

    def table(self):
        table = super().table()
        table["target"] = (table["image"] > 128).map({False: "dark", True: "bright"})
        return table.assign(prompt=self.prompt, reference=table["target"] + ".")


class Interview(Squares):
    """Two questions about each square, of different length, as are their answers."""

    name = "interview"
    classes = ("dark", "bright", "even", "odd")
    rows_per_split = (48, 12, 24)

    def table(self):
        bright = super().table()
        parity = (bright["image"] % 2 == 1).map({False: "even", True: "odd"})
        level = bright.assign(id=bright["id"] + "-level", prompt="Even or odd, its level?", target=parity)
        level["reference"] = "it is " + level["target"]
        return pd.concat([bright, level]).sort_index(kind="stable")


class Story(Squares):
    """Free text, which names no class."""

    name = "story"
    classes = ()

    def table(self):
        return super().table().drop(columns="target")


def interviewed(method="vanilla", settings=None, **options):
    return train(METHODS[method], settings, Writer, dataset=Interview, **{"stages": LEARN, **options})


@pytest.fixture(scope="module")
def learned():
    return interviewed()


@pytest.fixture(scope="module")
def model(learned):
    """The trained toy, made anew."""
    backbone = Writer().build(
        Interview.classes, Interview.classes, torch.float32, torch.device("cpu"), generates=True
    )
    for name, parameter in backbone.trainable().items():
        parameter.data.copy_(learned.weights[name])
    return backbone


def asked(split="test"):
    dataset = Interview()
    rows = dataset.table().query(f"split == '{split}'").to_dict("records")
    return [(dataset.image(row), row) for row in rows]


def naive_scores(model, image, ids):
    """Score the next token after each of some, (T, vocabulary): no batch, no padding, no mask, no cache."""
    embed = model.model["decoder"].get_input_embeddings().weight
    inputs = embed[ids].clone()
    inputs[:2] = model.model["eye"](torch.full((192,), image.getpixel((0, 0))[0] / 255) - 0.5).reshape(2, 16)
    hidden = model.model["decoder"](inputs_embeds=inputs[None]).last_hidden_state[0]
    return 40 * hidden @ embed.T


def naive_text(model, image, prompt, limit):
    ids, written = [257, 257, *model.tokenise(prompt)], []
    while len(written) < limit:
        token = int(naive_scores(model, image, ids)[-1].index_fill(0, torch.tensor(257), -torch.inf).argmax())
        if token == 256:
            break
        ids.append(token)
        written.append(token)
    return model.detokenise(written).strip()


# ── what is written ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch", sampled([3, 1, 32]))
def test_a_text_is_what_a_plain_loop_writes_whatever_the_batch(batch, monkeypatch, learned, model):
    monkeypatch.setattr(predicting, "BATCH", batch)
    predictions = interviewed().predictions
    test = predictions.query("split == 'test'")
    with torch.no_grad():
        expected = [naive_text(model, image, row["prompt"], 12) for image, row in asked()]
    assert test["text"].tolist() == expected
    assert len(set(expected)) > 3
    assert predictions.drop(columns="loss").equals(learned.predictions.drop(columns="loss"))
    assert (predictions["loss"] - learned.predictions["loss"]).abs().max() < 1e-5


def test_a_toy_learns_to_write_the_right_answer():
    test = train(METHODS["vanilla"], backbone=Writer, dataset=Squares, stages=LEARN).predictions.query(
        "split == 'test'"
    )
    assert (test["answer"] == test["target"]).mean() > 0.9
    assert (test["text"] == test["reference"]).mean() > 0.9


def test_nothing_is_written_beyond_the_limit():
    class Terse(Squares):
        """Three tokens and no more."""

        name = "terse"
        max_new_tokens = 3

    test = train(METHODS["vanilla"], backbone=Writer, dataset=Terse, stages=LEARN).predictions
    assert set(test["text"]) == {"dar", "bri"}
    assert set(test["answer"]) == {UNPARSED}


@pytest.mark.slow
def test_answers_are_written_by_halves_when_memory_runs_out(learned):
    class Small(Writer):
        """Holds five examples, also when it only writes."""

        name = "small"

        def decode(self, inputs, features, every=False, cache=None):
            if len(inputs["input_ids"]) > 5:
                raise torch.OutOfMemoryError("pretended")
            return super().decode(inputs, features, every, cache)

    small = train(METHODS["vanilla"], backbone=Small, dataset=Interview, stages=LEARN, micro_batch=4)
    assert small.predictions["text"].equals(learned.predictions["text"])


@pytest.mark.parametrize("name", ["tiny-qwen2.5-vl", "tiny-llava"])
def test_the_families_write_and_score_as_transformers_does(name):
    """What transformers' own `generate` and its loss over labels, do to one unpadded example at a time."""
    backbone = BACKBONES[name]().build((), (), torch.float32, torch.device("cpu"), generates=True)
    torch.manual_seed(0)
    for parameter in backbone.part("lora"):  # as if trained: untrained LoRA changes nothing
        parameter.data += 0.1 * torch.randn_like(parameter)
    examples, losses, texts, likely = [], [], [], []
    for prompt, reference in (("Why?", "Because."), ("What do you see in this picture?", "An eye"), ("Well?", "")):
        pixels = torch.randint(0, 255, (112, 112, 3), dtype=torch.uint8).numpy()
        example = backbone.prepare(Image.fromarray(pixels), prompt)
        answer = torch.tensor([*backbone.tokenise(reference), backbone.end_token_id])
        examples.append({**example, "answer_ids": answer})
        rest = {key: value for key, value in example.items() if key != "input_ids"}
        ids = torch.cat([example["input_ids"], answer])[None]
        labels = ids.clone()
        labels[0, : len(example["input_ids"])] = -100
        if name == "tiny-qwen2.5-vl":
            rest["mm_token_type_ids"] = (ids == backbone.image_token_id).int()
        with torch.no_grad():
            out = backbone.model(input_ids=ids, labels=labels, **rest)
            losses.append(out.loss.item())
            log_p = out.logits[0, -len(answer) - 1 : -1].log_softmax(-1)
            likely.append(log_p.gather(1, answer[:, None]).exp().mean().item())
            if "mm_token_type_ids" in rest:
                rest["mm_token_type_ids"] = rest["mm_token_type_ids"][:, : -len(answer)]
            ids = backbone.model.generate(
                input_ids=example["input_ids"][None],
                attention_mask=torch.ones_like(example["input_ids"][None]),
                **rest,
                max_new_tokens=8,
                do_sample=False,
                suppress_tokens=[backbone.image_token_id],
                eos_token_id=backbone.end_token_id,
                pad_token_id=backbone.pad_token_id,
            )
        texts.append(backbone.detokenise(ids[0, len(example["input_ids"]) :].tolist()).strip())
    with torch.no_grad():
        out = backbone(backbone.stack(examples), torch.full((3,), -1))
        assert backbone.generate(backbone.stack(examples, prompt_only=True), 8) == texts
    torch.testing.assert_close(out.loss, torch.tensor(losses), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.p_true, torch.tensor(likely), rtol=1e-4, atol=1e-6)


# ── what is learned ──────────────────────────────────────────────────────────────────────────────


def test_loss_and_probability_are_those_of_the_answer_alone(learned, model):
    """As transformers' loss over masked labels, an example at a time; the end of the answer counts."""
    examples, losses, likely = [], [], []
    for image, row in asked():
        prompt, answer = [257, 257, *model.tokenise(row["prompt"])], [*model.tokenise(row["reference"]), 256]
        with torch.no_grad():
            scores = naive_scores(model, image, [*prompt, *answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        losses.append(ForCausalLMLoss(scores[None], labels, 258).item())
        p = scores[len(prompt) - 1 : -1].softmax(-1)
        likely.append(sum(float(p[i, token]) for i, token in enumerate(answer)) / len(answer))
        examples.append({**model.prepare(image, row["prompt"]), "answer_ids": torch.tensor(answer)})
    with torch.no_grad():
        out = model(model.stack(examples), torch.full((len(examples),), -1))
    torch.testing.assert_close(out.loss, torch.tensor(losses), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.p_true, torch.tensor(likely), rtol=1e-4, atol=1e-6)
    assert out.scores.shape == (len(examples), 0)
    kept = learned.predictions.query("split == 'test'")["loss"]
    assert kept.tolist() == pytest.approx(losses, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vanilla", "fr", "gr", "hybrid"])
def test_batches_are_exact_on_answers_too(method):
    one = (Stage(epochs=1, lr=3e-3, warmup=2),)
    whole = interviewed(method, stages=one, micro_batch=8)
    for size in (1, 2, 3):
        assert difference(whole, interviewed(method, stages=one, micro_batch=size)) < TOLERANCE
    if method != "vanilla":
        assert difference(whole, interviewed(stages=one)) > 100 * TOLERANCE


@pytest.mark.slow
def test_without_strength_a_method_is_the_one_it_builds_on():
    options = {"backbone_settings": {"dropout": 0.1}, "stages": (Stage(epochs=1, lr=3e-3, warmup=2),)}
    plain, weighed = (interviewed(method, **options) for method in ("vanilla", "gr"))
    assert difference(interviewed("fr", {"strength": 0.0}, **options), plain) == 0
    assert difference(interviewed("hybrid", {"strength": 0.0}, **options), weighed) == 0
    assert difference(interviewed("gr", {"reading": "per-sample", "cap": 1.0}, **options), plain) == 0


def test_features_that_were_kept_change_nothing():
    one = (Stage(epochs=1, lr=3e-3, warmup=2),)
    fresh, kept = (interviewed(features=features, stages=one) for features in (False, True))
    assert fresh.record.facts["features"] == "computed each time" != kept.record.facts["features"]
    assert difference(fresh, kept) < TOLERANCE
    assert fresh.predictions["text"].equals(kept.predictions["text"])


def test_an_epoch_can_be_chosen_by_what_its_answers_name():
    outcome = interviewed(select="best:accuracy")
    assert outcome.record.facts["selected epoch"].endswith("of 8 by best:accuracy")


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────


def test_predictions_hold_question_reference_text_loss_and_the_class_named(learned):
    predictions = learned.predictions
    assert [*predictions.columns] == [
        "id", "cluster", "split", "target", "prompt", "reference", "text", "loss", "answer", "site", "sex",
    ]  # fmt: skip
    table = Interview().table().query("split != 'train'").reset_index(drop=True)
    for column in ("id", "cluster", "split", "prompt", "reference", "site", "sex"):
        assert predictions[column].equals(table[column])
    assert predictions["target"].tolist() == table["target"].map(Interview.classes.index).tolist()
    for text, answer in zip(predictions["text"], predictions["answer"], strict=True):
        named = [name for name in Interview.classes if name in text.replace(".", " ").split()]
        assert answer == (Interview.classes.index(named[0]) if named else UNPARSED)
    assert (predictions["loss"] > 0).all()


def test_free_text_has_no_classes():
    predictions = train(METHODS["vanilla"], backbone=Writer, dataset=Story, stages=LEARN).predictions
    assert not {"target", "answer", "p_0"} & set(predictions)
    test = predictions.query("split == 'test'")
    assert (test["text"] == test["reference"]).mean() > 0.9


def test_adjust_sees_questions_and_texts_but_no_reference():
    seen = []

    class Peeks(Method):
        """Look at everything it is given, and say something else."""

        name = "peeks"

        def adjust(self, run, validation, test):
            seen.append((set(validation), set(test)))
            return test.assign(text=["odd, then even", "nothing"] * (len(test) // 2))

    class Wordless(Method):
        """Return no text."""

        name = "wordless"

        def adjust(self, run, validation, test):
            return test.assign(text=None)

    test = train(Peeks, backbone=Writer, dataset=Interview).predictions.query("split == 'test'")
    assert set(test["answer"][::2]) == {Interview.classes.index("odd")}
    assert set(test["answer"][1::2]) == {UNPARSED}
    validation, test = seen[0]
    assert {"target", "reference", "loss", "site", "sex"} <= validation
    assert test == {"id", "cluster", "split", "prompt", "text", "answer"}
    with pytest.raises(AssertionError, match=r"wordless\.adjust returned a text that is none"):
        train(Wordless, backbone=Writer, dataset=Interview)


@pytest.mark.slow
def test_what_is_written_does_not_depend_on_test_references():
    class Scrambled(Interview):
        """The same patients, with other answers to the test questions."""

        name = "scrambled"

        def table(self):
            table = super().table()
            test = table["split"] == "test"
            table.loc[test, ["reference", "target"]] = ["even and odd", "odd"]
            return table

    for method in ("vanilla", "hybrid", "majority"):
        options = {"select": "best:accuracy", "stages": (Stage(epochs=2, lr=2e-2, warmup=2),)}
        first = interviewed(method, **options)
        second = train(METHODS[method], None, Writer, dataset=Scrambled, **options)
        assert difference(first, second) == 0
        assert first.predictions["text"].equals(second.predictions["text"])


# ── controls ─────────────────────────────────────────────────────────────────────────────────────


def test_majority_gives_each_question_its_commonest_answer():
    test = interviewed("majority").predictions.query("split == 'test'")
    train_rows = pd.DataFrame([row for _, row in asked("train")])
    for prompt, rows in train_rows.groupby("prompt"):
        commonest = rows["reference"].value_counts().index[0]
        assert set(test.loc[test["prompt"] == prompt, "text"]) == {commonest}
    assert test["answer"].nunique() == 2


def test_blank_images_leave_one_text_for_each_question(learned):
    ablated = interviewed("image-ablated").predictions
    assert (ablated.groupby("prompt")["text"].nunique() == 1).all()
    assert ablated["text"].nunique() == 2
    assert ablated.groupby(["prompt", "reference"])["loss"].nunique().eq(1).all()
    assert ablated["loss"].nunique() == 4
    assert (learned.predictions.groupby("prompt")["text"].nunique() > 1).any()


@pytest.mark.parametrize("dataset", [Interview, Story])
@pytest.mark.parametrize("method", sampled(METHODS, "vanilla", "gr", "thresholds", "demonstrations"))
def test_every_method_trains_on_answers_or_says_why_not(method, dataset):
    if METHODS[method]().needs:  # the scores of classes, or a readout
        with pytest.raises(AssertionError, match=f"^{method} "):  # its own words, and no traceback
            train(METHODS[method], backbone=Writer, dataset=dataset)
    else:
        test = train(METHODS[method], backbone=Writer, dataset=dataset).predictions
        assert test["text"].map(type).eq(str).all()
