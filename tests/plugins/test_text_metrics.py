"""Metrics of generated text against the libraries themselves, their authors' code, and cases worked by hand."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import sacrebleu
import sklearn.metrics as sk
import torch
from fairbench_plugins.metrics import chexbert_f1, exact_match, green
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from transformers import BertConfig, BertModel, BertTokenizer, LlamaConfig, LlamaForCausalLM

from fairbench import FairbenchError, Metric, Predictions, plugins, read_predictions
from fairbench.metrics.disparity import disparities, rates
from fairbench.metrics.evidence import score_with_evidence
from fairbench.metrics.score import score
from fairbench.report import json as as_json
from fairbench.statistics.permutation import judge

METRICS = plugins.load(("metric",)).tables["metric"]
BY_ROW = ("bleu_1", "bleu_4", "rouge_l", "exact_match")
CORPUS = ("corpus_bleu_1", "corpus_bleu_4")
MODELS = {
    "meteor": "FAIRBENCH_WORDNET",
    "radgraph_f1": "FAIRBENCH_RADGRAPH",
    "chexbert_macro_f1_14": "FAIRBENCH_CHEXBERT",
    "green_score": "FAIRBENCH_GREEN",
}


@pytest.fixture(autouse=True)
def _no_models(monkeypatch):
    for variable in (*MODELS.values(), "FAIRBENCH_RADGRAPH_PYTHON"):
        monkeypatch.delenv(variable, raising=False)


def rows(pairs, group=None):
    texts, references = zip(*pairs, strict=True)
    table = pd.DataFrame({"text": texts, "reference": references})
    if group is None:
        return Predictions(table, ())
    return Predictions(table.assign(group=pd.array(list(group), dtype="str")), (), ("group",))


def scores(name, pairs):
    return METRICS[name].scores(rows(pairs))


WORDS = st.sampled_from(
    ["no", "acute", "effusion", "The", "heart", "is", "enlarged", ",", "2.5", "cm", "left-sided"]
)
SENTENCE = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)
PAIRS = st.lists(st.tuples(st.one_of(SENTENCE, st.just("")), SENTENCE), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS)
def test_bleu_and_rouge_are_what_the_libraries_say(pairs):
    texts, references = map(list, zip(*pairs, strict=True))
    for order in (1, 4):
        by_row = sacrebleu.BLEU(max_ngram_order=order, effective_order=True)
        expected = [by_row.sentence_score(text, [reference]).score / 100 for text, reference in pairs]
        np.testing.assert_allclose(scores(f"bleu_{order}", pairs), expected, atol=1e-12)
        corpus = sacrebleu.BLEU(max_ngram_order=order).corpus_score(texts, [references]).score / 100
        assert METRICS[f"corpus_bleu_{order}"].value(rows(pairs)).value == pytest.approx(corpus)
    rouge = RougeScorer(["rougeL"])
    expected = [rouge.score(reference, text)["rougeL"].fmeasure for text, reference in pairs]
    np.testing.assert_allclose(scores("rouge_l", pairs), expected, atol=1e-12)


def test_bleu_and_rouge_by_hand():
    pair = [("the the cat", "the cat sat down")]  # clipped: the, cat of three words; BP e^(1 − 4/3)
    assert scores("bleu_1", pair)[0] == pytest.approx(2 / 3 * np.exp(-1 / 3))
    # no 4-gram in three words: orders 1 to 3, 2/3 · 1/2 · (0 → 1/2 of 1, by exp smoothing)
    assert scores("bleu_4", pair)[0] == pytest.approx((2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3) * np.exp(-1 / 3))
    assert scores("rouge_l", pair)[0] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))  # the cat
    assert scores("rouge_l", [("Running, effusions!", "running effusion")])[0] == pytest.approx(0.5)  # no stems
    assert scores("bleu_1", [("The cat", "the cat")])[0] == pytest.approx(0.5)  # case is kept


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS)
def test_identity_is_one_nothing_is_zero_and_order_does_not_matter(pairs):
    for name in (*BY_ROW, *CORPUS):
        metric = METRICS[name]
        value = metric.value(rows(pairs)).value
        assert 0 <= value <= 1
        assert metric.value(rows(pairs[::-1])).value == pytest.approx(value)
        assert metric.value(rows([("", reference) for _, reference in pairs])).value == 0
        if name not in CORPUS:
            words = [(reference, reference) for _, reference in pairs if any(c.isalnum() for c in reference)]
            assert all(metric.scores(rows([*words, ("a", "a")])) == 1)


@pytest.mark.parametrize(
    ("text", "reference", "match"),
    [
        ("No effusion.", "no  effusion", True),
        ("NO EFFUSION ?!", "no effusion.", True),
        ("ﬁbrosis", "fibrosis", True),
        ("Straße", "STRASSE", True),
        ("0.5", "05", False),
        ("no, effusion", "no effusion", False),
        ("effusion", "no effusion", False),
        ("", "no effusion", False),
        ("", "...", False),
    ],
)
def test_exact_match_forgives_case_spaces_and_the_end(text, reference, match):
    assert scores("exact_match", [(text, reference)])[0] == match


@given(text=st.text(st.characters(max_codepoint=0x17F)))
def test_what_is_normal_stays_so(text):
    once = exact_match.normal(text)
    assert exact_match.normal(once) == once
    assert exact_match.normal(f" {once}  ") == once


def bleu_1_of(matches, group):
    """A row of 100 words, so many of which stand in the reference."""
    reference = [f"word{k}" for k in range(100)]
    text = [word if k < matches else f"other{k}" for k, word in enumerate(reference)]
    return " ".join(text), " ".join(reference), group


def test_es_bleu_1_is_the_published_arithmetic():
    """LLaVA-Rad by race in FairLLaVA's table: BLEU-1 38.17 and ES-BLEU-1 5.29 leave a gap of 6.2 points."""
    made = [bleu_1_of(35, "a")] * 49 + [bleu_1_of(41, "b")] * 40 + [bleu_1_of(42, "b")] * 11
    texts = rows([row[:2] for row in made], [row[2] for row in made])
    low, high, whole = 0.35, 2102 / 5100, 0.3817
    assert METRICS["bleu_1"].value(texts).value == pytest.approx(whole)
    by_preset = {
        "fairllava": whole / (1 + 100 * (high - low)),
        "fairllava-table": (low + high) / 2 / (1 + 100 * (high - low)),
        "fairclip": whole / (1 + (whole - low) + (high - whole)),
    }
    for preset, expected in by_preset.items():
        scores = score(texts, ["group"], [METRICS["bleu_1"]], equity=preset).attributes["group"].disparities
        assert scores["es_bleu_1"].value == pytest.approx(expected)
        assert scores["bleu_1_gap"].value == pytest.approx(high - low)
        assert (scores["worst_bleu_1"].value, scores["worst_bleu_1"].group) == (pytest.approx(low), "a")
    assert round(100 * by_preset["fairllava"], 2) == 5.29


def some_texts(n, seed=0):
    """Texts that repeat a share of their reference's words, a share that depends on the group."""
    rng = np.random.default_rng(seed)
    group = np.where(np.arange(n) % 4 == 0, "few", "many")
    pairs = []
    for name in group:
        reference = rng.choice([f"w{k}" for k in range(40)], 25)
        kept = rng.random(25) < rng.beta(4, 3 if name == "few" else 2.2)
        pairs.append((" ".join(np.where(kept, reference, "x")), " ".join(reference)))
    return rows(pairs, group)


@pytest.mark.parametrize(("rows", "seed"), [(16, 3), (160, 0)])
def test_the_evidence_about_real_scores_is_a_permutation_test(rows, seed):
    """Shuffle the groups by hand: studentised differences for p, means in their own spread for the floor."""
    texts = some_texts(rows, seed)
    codes, names = texts.groups("group")
    rule = disparities([METRICS["bleu_1"]])["bleu_1_gap"]
    (values,), reduce = rates(rule, texts)
    judged = judge([values], codes, reduce=reduce, names=names)
    assert judged.value == pytest.approx(abs(values[codes == 0].mean() - values[codes == 1].mean()))

    def parts(labels):
        cells = [values[labels == g] for g in range(2)]
        mean = np.array([cell.mean() for cell in cells])
        scatter = np.array([((cell - cell.mean()) ** 2).sum() for cell in cells])
        size = np.array([len(cell) for cell in cells])
        usual = scatter.sum() / size.sum()  # one average row's scatter is added to every group
        return mean, np.sqrt((scatter + usual) / size / (size - 1))

    def difference(mean, error):
        return abs(mean[0] - mean[1]) / np.sqrt((error**2).sum())

    own_mean, own_error = parts(codes)
    rng = np.random.default_rng(1)
    draws = [parts(rng.permutation(codes)) for _ in range(20_000)]
    p = np.mean([difference(*draw) >= difference(own_mean, own_error) for draw in draws])
    pooled = values.mean()
    kept = [np.clip(pooled + (m - pooled) * own_error / error, values.min(), values.max()) for m, error in draws]
    floor = [abs(m[0] - m[1]) for m in kept]
    assert 0.001 < p < 0.5  # neither hopeless nor certain, so that the comparison says something
    assert judged.p == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 10_000))
    assert judged.floor_mean == pytest.approx(np.mean(floor), rel=0.03)
    assert judged.floor_95 == pytest.approx(np.quantile(floor, 0.95), rel=0.04)


def test_every_row_scored_text_metric_comes_with_evidence():
    scores = score_with_evidence(some_texts(80), ["group"], [METRICS[name] for name in (*BY_ROW, *CORPUS)])
    part = scores.attributes["group"]
    for name in ("bleu_1", "bleu_4", "rouge_l"):
        few, overall = part.groups["few"].metrics[name], scores.overall.metrics[name]
        assert few.low < few.value < few.high
        assert overall.low < overall.value
        for rule in (f"{name}_gap", f"worst_{name}", f"es_{name}"):
            gap = part.disparities[rule]
            assert 0 < gap.p <= 1
            assert gap.excess == pytest.approx(gap.value - gap.floor_mean)
    assert "not a mean over rows" in part.disparities["corpus_bleu_1_gap"].notes[-1]
    json.dumps(as_json.scores(scores), allow_nan=False)


def test_a_report_lists_the_metrics_of_its_kind_of_answers():
    texts = some_texts(8)
    classes = pd.DataFrame({"target": [0, 1], "answer": [1, -1], "group": pd.array(["a", "b"], dtype="str")})
    of_text = score(texts, ["group"], [*METRICS.values()])
    of_classes = score(Predictions(classes, ("no", "yes"), ("group",)), ["group"], [*METRICS.values()])
    of_both = Predictions(texts.table.assign(target=0, answer=0), ("no", "yes"), ("group",))
    undefined = {name for name, one in of_classes.overall.metrics.items() if one.value is None}
    assert {*of_text.overall.metrics} == {*BY_ROW, *CORPUS}
    assert not {"max_acc_gap", "eq_odds_max"} & {*of_text.attributes["group"].disparities}
    assert not {*BY_ROW, *CORPUS, *MODELS} & {*of_classes.overall.metrics}
    assert "auroc" in undefined
    assert of_classes.overall.metrics["auroc"].reason == "the predictions have no probabilities"
    assert {"accuracy", "bleu_1"} <= {*score(of_both, ["group"], [*METRICS.values()]).overall.metrics}
    assert of_text.made_with["bleu_4"].startswith(f"sacrebleu {sacrebleu.__version__}")


def test_unparsed_answers_are_wrong_in_macro_f1():
    target, answer = [0, 0, 1, 1, 2, 2], [0, -1, 1, 2, 2, -1]
    table = pd.DataFrame({"target": target, "answer": answer})
    value = METRICS["macro_f1"].value(Predictions(table, ("x", "y", "z"))).value
    assert value == pytest.approx(sk.f1_score(target, answer, labels=[0, 1, 2], average="macro"))
    assert value == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)


def test_a_file_without_a_reference_is_refused(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("id,reference,text,race\na,no mass,no mass,x\nb,,no mass,y\n")
    with pytest.raises(FairbenchError, match="`reference` is empty in 1 of 2 rows, first in row 2"):
        read_predictions(path)


@pytest.mark.parametrize(("name", "variable"), MODELS.items())
def test_a_model_that_is_not_there_is_named_with_how_to_get_it(name, variable, monkeypatch, tmp_path):
    texts, metric = some_texts(4), METRICS[name]
    for value in (metric.value(texts), *metric.by_group(texts, texts.groups("group")[0], 2)):
        assert value.value is None
        assert f"{variable} is not set" in value.reason
        assert f"set {variable}=F" in value.reason
        assert "download" in value.reason
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    reason = metric.value(texts).reason
    assert re.search(f"{variable}=.*nowhere", reason)
    assert "download" in reason


def bert_labeler(config):
    """CheXbert's own module (github.com/stanfordmlgroup/CheXbert, src/models/bert_labeler.py)."""
    module = torch.nn.Module()
    module.bert = BertModel(config)
    module.linear_heads = torch.nn.ModuleList([torch.nn.Linear(config.hidden_size, 4) for _ in range(13)])
    module.linear_heads.append(torch.nn.Linear(config.hidden_size, 2))
    return module


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, "##s", ".", ",", "no", "acute", "effusion", "heart", "small"]


@pytest.fixture
def chexbert(tmp_path, monkeypatch):
    """A tiny random CheXbert, saved in the format of the published one, and its labels one text at a time."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        initializer_range=0.4,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    module = bert_labeler(config).eval()
    with torch.no_grad():
        for head in module.linear_heads:
            head.weight.mul_(20)  # answers that depend on the text
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"epoch": 1, "model_state_dict": state}, tmp_path / "chexbert.pth")
    monkeypatch.setenv("FAIRBENCH_CHEXBERT", str(tmp_path))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))

    @torch.inference_mode()
    def labels(text):
        ids = tokenizer(" ".join(text.split()))["input_ids"]
        ids = ids if len(ids) <= 512 else [*ids[:511], tokenizer.sep_token_id]
        first = module.bert(torch.tensor([ids]))[0][:, 0]
        return [int(head(first).argmax()) == 1 for head in module.linear_heads]

    return labels


def test_chexbert_is_read_and_counted_as_its_authors_do(chexbert):
    rng = np.random.default_rng(0)
    sentences = [" ".join(rng.choice(VOCABULARY[5:], rng.integers(1, 9))) for _ in range(160)]
    pairs = [*zip(sentences[:80], sentences[80:], strict=True), ("", "effusion\n  the " * 300)]
    texts, references = (np.array([chexbert(text) for text in column]) for column in zip(*pairs, strict=True))
    table = rows(pairs)
    labeller = chexbert_f1._labeller(os.environ["FAIRBENCH_CHEXBERT"])
    np.testing.assert_array_equal(labeller.present([text for text, _ in pairs]), texts)
    np.testing.assert_array_equal(labeller.present([reference for _, reference in pairs]), references)
    assert len({*map(tuple, texts)}) > 5  # the labels do depend on the text
    five = [chexbert_f1.LABELS.index(label) for label in chexbert_f1.FIVE]
    for count, columns in ((14, list(range(14))), (5, five)):
        true, said = references[:, columns], texts[:, columns]
        for kind in ("micro", "macro"):
            value = METRICS[f"chexbert_{kind}_f1_{count}"].value(table)
            if kind == "macro" and not true.any(axis=0).all():
                lacking = chexbert_f1.LABELS[columns[int(true.any(axis=0).argmin())]]
                assert f"no reference with {lacking}" in value.reason
            else:
                assert value.value == pytest.approx(sk.f1_score(true, said, average=kind))
    accuracy = (references == texts).mean()  # which is what "micro" over flattened 0/1 labels gives:
    assert sk.f1_score(references.ravel(), texts.ravel(), average="micro") == pytest.approx(accuracy)
    assert METRICS["chexbert_micro_f1_14"].value(table).value != pytest.approx(accuracy, abs=0.05)
    assert (
        "chexbert.pth sha256"
        in score(table, [], [METRICS["chexbert_micro_f1_14"]]).made_with["chexbert_micro_f1_14"]
    )


def test_a_checkpoint_that_could_run_code_is_refused(chexbert, tmp_path):
    class Danger:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model_state_dict": {"bert": Danger()}}, tmp_path / "chexbert.pth")
    chexbert_f1._labeller.cache_clear()
    assert "cannot be loaded" in METRICS["chexbert_micro_f1_5"].value(some_texts(4)).reason
    assert not (tmp_path / "ran").exists()


ANALYSIS = """[Explanation]:
{0}

[Clinically Significant Errors]:
{1}

[Clinically Insignificant Errors]:
(b) Missing a finding: 4. one; two; three; four

[Matched Findings]:
{2}
"""


@pytest.mark.parametrize(
    ("errors", "matched", "value"),
    [
        ("(a) False report: 1. effusion\n(b) Missing a finding: 2. edema; mass", "3. heart; lungs; bones", 3 / 6),
        ("(c) Wrong place: 1. left for right\n(e) A comparison: 1. since 2.5 years", "2. heart; lungs", 2 / 4),
        ("(1) False report: 1. effusion", "1. heart", 1 / 2),
        ("No errors.", "2. heart; lungs", 1),
        ("", "2. heart; lungs", 2 / 6),  # as in the authors' code: an empty section runs into the next
        ("(a) False report: 1. effusion", "No matched findings.", 0),
        ("(a) False report: 1. effusion", "0.", 0),
        ("(a) False report: none", "4. a; b; c; d", 1),
    ],
)
def test_a_green_analysis_is_counted(errors, matched, value):
    assert green.read(ANALYSIS.format("It differs.", errors, matched)) == value


def test_a_green_analysis_that_breaks_off_is_zero():
    assert green.read("The candidate report [Clinically Significant Errors]: (a) x: 1.") == 0


CHAT = (  # the template of github.com/Stanford-AIMI/GREEN, green_score/green.py
    "{% for message in messages %}\n{% if message['from'] == 'human' %}\n"
    "{{ '<|user|>\\n' + message['value'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)


def test_green_runs_on_a_local_model_and_judges_a_pair_once(tmp_path, monkeypatch):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "<s>", "</s>", *map(chr, range(32, 127)), "\n"]
    made = Tokenizer(models.WordLevel({letter: k for k, letter in enumerate(letters)}, unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(letters), max_position_embeddings=4096, **sizes)).save_pretrained(
        tmp_path
    )
    monkeypatch.setenv("FAIRBENCH_GREEN", str(tmp_path))
    monkeypatch.setattr(green, "TOKENS", 4000)  # letters are tokens here
    monkeypatch.setattr(green, "WRITTEN", 24)
    pairs = [("no effusion", "no effusion"), ("the heart is enlarged", "edema"), ("no effusion", "no effusion")]
    scores = METRICS["green_score"].scores(rows(pairs))
    assert list(scores) == [0, 0, 0]  # random weights match nothing
    judge = green._judge(str(tmp_path))
    assert len(judge.known) == 2
    alone, together = judge.analyses(pairs[:1]), judge.analyses(pairs[:2])
    assert alone[0] == together[0]  # padding on the left changes nothing
    assert len(alone[0]) > 5
    monkeypatch.setattr(judge, "analyses", lambda batch: pytest.fail("judged again"))
    METRICS["green_score"].scores(rows(pairs))
    judge.tokenizer.chat_template = CHAT
    message = {"from": "human", "value": green.PROMPT.format(text="a", reference="b")}
    rendered = judge.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    assert judge.asked("a", "b") == rendered
    assert METRICS["green_score"].made_with().startswith("GREEN ")


RADGRAPH_STANDIN = """
import os
class F1RadGraph:
    def __init__(self, reward_level, model_type, model_cache_dir, cuda):
        assert (reward_level, cuda) == ("partial", -1)
        assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
        assert os.path.isfile(os.path.join(model_cache_dir, model_type, "weights.th"))
        print("Using device: cpu")
    def __call__(self, refs, hyps):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(f"{len(hyps)} ")
        same = [float(ref == hyp) for ref, hyp in zip(refs, hyps)]
        return sum(same) / len(same), same, None, None
"""


@pytest.fixture
def radgraph(tmp_path, monkeypatch):
    """A stand-in with radgraph's interface, for what is ours: asking another Python, once per pair, offline."""
    (tmp_path / "radgraph.py").write_text(RADGRAPH_STANDIN)
    info = tmp_path / "radgraph-0.1.18.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: radgraph\nVersion: 0.1.18\n")
    model = tmp_path / "radgraph-xl"
    model.mkdir()
    (model / "weights.th").write_bytes(b"weights")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAIRBENCH_RADGRAPH", f"{model}/")
    monkeypatch.setenv("FAIRBENCH_RADGRAPH_PYTHON", sys.executable)
    return tmp_path


def test_radgraph_is_asked_once_per_pair_in_its_own_python(radgraph):
    pairs = [("no mass", "no mass"), ("mass", "no mass"), (" ", "no mass"), ("no mass", "no mass")]
    metric = METRICS["radgraph_f1"]
    before = metric.made_with()
    assert list(metric.scores(rows(pairs))) == [1, 0, 0, 1]
    assert metric.value(rows(pairs)).value == 0.5
    metric.scores(rows([*pairs, ("new", "no mass")]))
    assert (radgraph / "calls").read_text() == "2 1 "
    assert metric.made_with() == before, "what names a table must be known before anything is scored"
    assert before.startswith("radgraph 0.1.18, transformers ")
    assert "radgraph-xl sha256" in metric.made_with()


def test_radgraph_says_what_went_wrong(radgraph, monkeypatch):
    (radgraph / "radgraph.py").write_text("raise ImportError('no such thing')")
    reason = METRICS["radgraph_f1"].value(some_texts(4)).reason
    assert "ImportError: no such thing" in reason
    assert "transformers<5" in reason
    monkeypatch.delenv("FAIRBENCH_RADGRAPH_PYTHON")
    assert "FAIRBENCH_RADGRAPH_PYTHON does not name" in METRICS["radgraph_f1"].value(some_texts(4)).reason


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    """A WordNet of one synset, in WordNet's own format: tumor and neoplasm."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    licence = "  1 WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.\n"
    place = f"{len(licence):08d}"
    files = {
        **{f"{kind}.{part}": licence for kind in ("data", "index") for part in ("adj", "adv", "noun", "verb")},
        **{f"{part}.exc": "" for part in ("adj", "adv", "noun", "verb")},
        "lexnames": "00\tnoun.Tops\t1\n",
        "index.sense": f"neoplasm%1:00:00:: {place} 1 0\ntumor%1:00:00:: {place} 1 0\n",
    }
    files["data.noun"] += f"{place} 00 n 02 tumor 0 neoplasm 0 000 | an abnormal mass of tissue\n"
    files["index.noun"] += "".join(f"{word} n 1 0 1 0 {place}\n" for word in ("neoplasm", "tumor"))
    for name, content in files.items():
        (folder / name).write_text(content)
    monkeypatch.setenv("FAIRBENCH_WORDNET", str(tmp_path))


def test_meteor_by_hand(wordnet):
    pairs = [
        ("a small tumor", "a small neoplasm"),  # 3 of 3 in one chunk, the last by synonym
        ("small tumors", "tumor small"),  # 2 of 2, by form and by stem, in two chunks
        ("a mass", "a neoplasm"),  # 1 of 2 in one chunk
        ("", "a neoplasm"),
    ]
    expected = [1 - 0.5 / 27, 1 - 0.5, (1 - 0.5) * 0.5, 0]
    np.testing.assert_allclose(scores("meteor", pairs), expected)


def test_meteor_names_its_wordnet_by_content_and_not_by_place(wordnet, tmp_path, monkeypatch):
    made_with, other = METRICS["meteor"].made_with, tmp_path / "other"
    shutil.make_archive(str(other / "corpora" / "wordnet"), "zip", tmp_path / "corpora", "wordnet")
    unpacked = made_with()
    assert re.fullmatch(r"nltk [\d.]+, WordNet sha256 [0-9a-f]{16}", unpacked)
    monkeypatch.setenv("FAIRBENCH_WORDNET", str(other))
    assert made_with() == unpacked
    shutil.copytree(tmp_path / "corpora" / "wordnet", other / "corpora" / "wordnet")
    (other / "corpora" / "wordnet" / "index.noun").write_text("another")
    monkeypatch.setenv("FAIRBENCH_WORDNET", f"{other}/")
    assert made_with() != unpacked


def test_a_metric_of_text_needs_no_more_than_each():
    """A third party's metric of text has gaps and equity scaling without a further line."""
    length = Metric(
        name="brevity",
        title="Brevity",
        formula="share of the reference's words",
        source="this test",
        each=lambda rows: np.array([min(1, len(a.split()) / len(b.split())) for a, b in rows.pairs]),
        needs=("text",),
    )
    scores = score(rows([("a", "a b"), ("a b", "a b")], "xy"), ["group"], [length])
    assert {name: one.value for name, one in scores.overall.metrics.items()} == {"brevity": 0.75}
    part = scores.attributes["group"].disparities
    assert (part["brevity_gap"].value, part["worst_brevity"].group) == (0.5, "x")
    assert part["es_brevity"].value == pytest.approx(0.75 / 51)
