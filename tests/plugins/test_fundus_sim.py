"""The embedded dataset: what is planted is there, and nothing else is."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fairbench_plugins.datasets import fundus_sim
from fairbench_plugins.datasets.fundus_sim import (
    BURDEN,
    QUESTIONS,
    RATIO,
    SHARES,
    SPREAD,
    FundusSim,
    FundusSimReport,
    FundusSimVQA,
    draw,
)
from scipy import integrate, stats

from fairbench import FairbenchError
from fairbench.data.dataset import rows

SMALL = {"train_size": 6, "val_size": 2, "test_size": 4}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAIRBENCH_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    return FundusSim(train_size=8_000).eyes().query("split == 'train'")


def pixels(dataset: FundusSim) -> dict[str, np.ndarray]:
    return {row["id"]: np.asarray(dataset.image(row)) for row in rows(dataset).to_dict("records")}


def drawn(eyes: pd.DataFrame) -> np.ndarray:
    return np.concatenate(list(draw(eyes)))


def test_the_drawing_is_the_published_one():
    """Every machine draws these bits; a change here is a new drawing, so raise DRAWING with it."""
    images = drawn(FundusSim(**SMALL).eyes())
    table = FundusSim().table().to_csv(index=False)
    assert fundus_sim.DRAWING == 2
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "ba8344a93450d2d2"
    assert hashlib.sha256(table.encode()).hexdigest()[:16] == "7f595d759dab1869"
    assert FundusSim().fingerprint() == "8f1e745767c337d3"  # published leaderboards were made from it


def test_cached_fresh_and_redrawn_images_are_the_same(cache: Path):
    first = pixels(FundusSim(**SMALL))
    cached = pixels(FundusSim(**SMALL))
    next(cache.glob("*.npy")).unlink()
    redrawn = pixels(FundusSim(**SMALL))
    direct = drawn(FundusSim(**SMALL).eyes())
    for number, name in enumerate(first):
        for other in (cached[name], redrawn[name], direct[number]):
            np.testing.assert_array_equal(first[name], other)
    assert first["train-00000"].shape == (112, 112, 3)


def test_a_cache_that_is_there_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch):
    before = pixels(FundusSim(**SMALL))
    monkeypatch.setattr(fundus_sim, "draw", lambda eyes: pytest.fail("drawn again"))
    after = pixels(FundusSim(**SMALL, prompt="Is the cup large?", limit=10))
    assert len(after) < len(before)
    assert all((before[name] == image).all() for name, image in after.items())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"\x93NUMPY",
        lambda content: content[:-1000],
        lambda content: content[:-5000] + bytes(5000),
        lambda content: content[:3000] + bytes([content[3000] ^ 1]) + content[3001:],
    ],
    ids=["empty", "header", "truncated", "zeroed", "one bit"],
)
def test_a_damaged_cache_is_redrawn(cache: Path, damage):
    whole = pixels(FundusSim(**SMALL))
    path = next(cache.glob("*.npy"))
    content = path.read_bytes()
    path.write_bytes(damage(content))
    again = pixels(FundusSim(**SMALL))
    assert all((whole[name] == again[name]).all() for name in whole)
    assert path.read_bytes() == content
    assert not list(cache.glob("*.part"))


def test_a_cache_folder_that_cannot_be_used_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch):
    (cache / "file").write_text("not a folder")
    monkeypatch.setenv("FAIRBENCH_CACHE", str(cache / "file"))
    with pytest.raises(FairbenchError, match="cannot keep its drawings") as caught:
        pixels(FundusSim(**SMALL))
    assert "FAIRBENCH_CACHE" in str(caught.value.hint)


def test_rows_do_not_depend_on_how_many_there_are():
    few, more = pixels(FundusSim(**SMALL)), pixels(FundusSim(train_size=9, val_size=1, test_size=5))
    shared = few.keys() & more.keys()
    assert len(shared) == 6 + 1 + 4
    assert all((few[name] == more[name]).all() for name in shared)
    small, large = (FundusSim(train_size=size).table().set_index("id") for size in (50, 500))
    pd.testing.assert_frame_equal(small.loc["train-00000":"train-00049"], large.iloc[:50])


def test_splits_seeds_and_rows_are_different_eyes():
    images = list(pixels(FundusSim(**SMALL)).values()) + list(pixels(FundusSim(**SMALL, seed=1)).values())
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("attribute", SHARES)
def test_people_come_in_the_papers_proportions(many: pd.DataFrame, attribute: str):
    for value, share in SHARES[attribute].items():
        count = int((many[attribute].isna() if value is None else many[attribute] == value).sum())
        assert stats.binomtest(count, len(many), share).pvalue > 0.001
    assert set(many[attribute].dropna()) == {value for value in SHARES[attribute] if value}


@pytest.mark.parametrize(
    ("attribute", "value"), [(attribute, value) for attribute in SHARES for value in SHARES[attribute]]
)
def test_who_somebody_is_decides_nothing_but_the_burden(
    monkeypatch: pytest.MonkeyPatch, attribute: str, value: str | None
):
    """Make everybody one value: the other attributes, the label, the ratio and every look stay as they were."""
    before = FundusSim().eyes()
    monkeypatch.setitem(SHARES, attribute, {value: 1.0})
    after = FundusSim().eyes()
    assert (after[attribute].isna() if value is None else after[attribute] == value).all()
    borne = [attribute, "burden", "shade"]
    pd.testing.assert_frame_equal(before.drop(columns=borne), after.drop(columns=borne))
    if attribute == "race":
        assert (after["burden"] == 0.5 * BURDEN[value]).all()
    else:
        pd.testing.assert_series_equal(before["burden"], after["burden"])


def test_without_bias_race_reaches_no_pixel():
    """The same eyes given other races by the same lot are drawn alike; with bias they are not."""
    plain, planted = FundusSim(bias=0, train_size=60).eyes(), FundusSim(bias=1, train_size=60).eyes()
    assert (plain["burden"] == 0).all()
    borne = ["burden", "shade"]
    pd.testing.assert_frame_equal(plain.drop(columns=borne), planted.drop(columns=borne))
    chosen = planted.index[planted["split"] == "train"]
    same = (drawn(plain.loc[chosen]) == drawn(planted.loc[chosen])).all((1, 2, 3))
    np.testing.assert_array_equal(same, planted.loc[chosen, "race"] == "white")
    assert set(planted.loc[chosen, "race"]) == set(BURDEN)


@pytest.mark.parametrize("race", BURDEN)
def test_prevalence_shifts_where_it_should(race: str):
    table = FundusSim(train_size=8_000, prevalence=0.4, prevalence_shift=0.2).table()
    ill = table.loc[table["race"] == race, "target"] == "glaucoma"
    assert stats.binomtest(int(ill.sum()), len(ill), 0.4 + 0.2 * BURDEN[race]).pvalue > 0.001


def test_the_label_follows_the_stated_ratio_distribution(many: pd.DataFrame):
    """Triangular in each class; the best cut is right 7/8 of the time, as its documentation says."""
    laws = {c: stats.triang(0.5, middle - SPREAD, 2 * SPREAD) for c, middle in RATIO.items()}
    for name, law in laws.items():
        assert stats.kstest(many.loc[many["target"] == name, "ratio"], law.cdf).pvalue > 0.001
    best, _ = integrate.quad(
        lambda ratio: max(0.5 * law.pdf(ratio) for law in laws.values()), 0, 1, points=[0.4, 0.53, 0.66]
    )
    assert best == pytest.approx(7 / 8, abs=1e-6)
    right = (many["ratio"] > 0.53) == (many["target"] == "glaucoma")
    assert stats.binomtest(int(right.sum()), len(right), 7 / 8).pvalue > 0.001
    by_race = right.groupby(many["race"]).mean()
    assert by_race.max() - by_race.min() < 0.03  # who sees the true ratio loses nothing by race


def test_the_drawn_cup_has_the_stated_ratio():
    """Count bright pixels of drawings without vessels, shade, blur or noise: cup area over disc area."""
    still = {"vessels": 0, "vignette": 0, "noise": 0, "blur": 0, "pigment": 0.3, "pallor": 0}
    eyes = FundusSim().eyes().head(40).assign(**still, cup_contrast=1.0, burden=0.0)
    blue = drawn(eyes.assign(brightness=0.9))[..., 2].astype(float)
    retina, rim, cup = 0.9 * 57, 0.9 * 112, 0.9 * 208
    disc_area = (blue > (retina + rim) / 2).sum((1, 2))
    cup_area = (blue > (rim + cup) / 2).sum((1, 2))
    np.testing.assert_allclose(np.sqrt(cup_area / disc_area), eyes["ratio"], atol=0.02)


@pytest.mark.parametrize("race", BURDEN)
def test_bias_takes_away_cup_contrast_and_image_quality(race: str):
    eyes = FundusSim(train_size=40).eyes().head(40)
    clear, planted = (drawn(eyes.assign(burden=b * BURDEN[race])).astype(float) for b in (0.0, 1.0))
    y, x = np.mgrid[:112, :112]
    away = (
        np.hypot(
            x[None] - 55.5 - 56 * eyes["disc_x"].to_numpy()[:, None, None],
            y[None] - 55.5 - 56 * eyes["disc_y"].to_numpy()[:, None, None],
        )
        / 56
    )
    share = away / eyes["disc_radius"].to_numpy()[:, None, None]
    ratio = eyes["ratio"].to_numpy()[:, None, None]
    middle, rim = share < 0.5 * ratio, (share > 1.15 * ratio) & (share < 0.95)

    def contrast(images: np.ndarray) -> float:
        blue = images[..., 2]
        return float(
            np.median([i[m].mean() - i[r].mean() for i, m, r in zip(blue, middle, rim, strict=True) if r.any()])
        )

    kept = contrast(planted) / contrast(clear)
    assert kept == 1 if race == "white" else kept < 1 - 0.5 * BURDEN[race]


@pytest.mark.parametrize(
    "settings",
    [
        {"bias": 1.1},
        {"bias": -0.1},
        {"prevalence": 0.9},
        {"prevalence_shift": 0.3},
        {"train_size": 0},
        {"seed": -1},
        {"seed": 1.5},
        {"biass": 0.2},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]):
    with pytest.raises(FairbenchError, match=next(iter(settings))):
        FundusSim(**settings)


def test_the_fingerprint_follows_settings_and_drawing_without_drawing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fundus_sim, "draw", lambda eyes: pytest.fail("drew to make a fingerprint"))
    marks = [FundusSim(**s).fingerprint() for s in ({}, {"bias": 0.1}, {"seed": 1}, {"limit": 9}, {})]
    assert len(set(marks)) == 4
    assert marks[0] == marks[-1]
    monkeypatch.setattr(fundus_sim, "DRAWING", 3)
    assert FundusSim().fingerprint() != marks[0]


def test_the_table_keeps_the_contract():
    table = rows(FundusSim())
    assert table["split"].value_counts().to_dict() == {"train": 1400, "val": 200, "test": 2000}
    assert table["cluster"].is_unique
    assert table["ethnicity"].isna().any()


# ── answers in words ─────────────────────────────────────────────────────────────────────────────


def truth(eye: pd.Series) -> dict[str, str]:
    grain = eye["noise"] * (1 + eye["burden"])
    return {
        "diagnosis": "yes" if eye["target"] == "glaucoma" else "no",
        "cup": "small" if eye["ratio"] <= 0.4 else "medium" if eye["ratio"] <= 0.6 else "large",
        "quality": "good" if grain <= 8 else "fair" if grain <= 10 else "poor",
    }


def test_every_eye_is_asked_every_question_and_the_answer_is_true():
    eyes, dataset = FundusSim().eyes().set_index("id"), FundusSimVQA(questions="diagnosis,cup,quality")
    table = rows(dataset)
    assert table["split"].value_counts().to_dict() == {"train": 3 * 1400, "val": 3 * 200, "test": 3 * 2000}
    for row in table.sample(900, random_state=0).to_dict("records"):
        eye, question = row["id"].rsplit("-", 1)
        assert row["cluster"] == eye
        assert row["target"] == truth(eyes.loc[eye])[question]
        assert row["prompt"] in QUESTIONS[question]
        assert dataset.classes[dataset.parse(row["reference"])] == row["target"]
        assert all(row[name] == eyes.loc[eye, name] or pd.isna(row[name]) for name in SHARES)
    assert table["reference"].str.len().max() < dataset.max_new_tokens
    assert table.groupby("prompt").size().min() > 1600  # both wordings of a question, about equally often
    answers = table.groupby(["prompt", "target"])["reference"].nunique()
    assert (answers == 1).all()  # who reads the question and knows the class can write the reference


def test_reports_say_what_was_drawn():
    eyes, table = FundusSim().eyes(), rows(FundusSimReport())
    assert "target" not in table
    for (_, eye), report in zip(eyes.head(300).iterrows(), table["reference"], strict=False):
        known = truth(eye)
        rim = {"small": "broad", "medium": "narrow", "large": "thin"}[known["cup"]]
        impression, other = ("healthy", "glaucomatous")[:: -1 if known["diagnosis"] == "yes" else 1]
        assert f" {eye['ratio']:.1f}" in report
        assert f"{rim} rim" in report or f"rim is {rim}" in report
        assert f"quality: {known['quality']}" in report.lower() or f"{known['quality']} image" in report.lower()
        assert impression in report
        assert other not in report
    assert table["reference"].str.len().max() < FundusSimReport.max_new_tokens
    assert set(table["prompt"]) == set(QUESTIONS["report"])


def test_photographs_in_words_are_those_of_fundus_sim(cache: Path, monkeypatch: pytest.MonkeyPatch):
    before = pixels(FundusSim(**SMALL))
    monkeypatch.setattr(fundus_sim, "draw", lambda eyes: pytest.fail("drawn again"))
    for kind in (FundusSimVQA, FundusSimReport):
        after = pixels(kind(**SMALL))
        assert all((before[name.rsplit("-", 1)[0]] == image).all() for name, image in after.items())


@pytest.mark.parametrize("question", ["diagnosis", "cup"])
def test_what_is_asked_by_default_has_the_same_answer_whatever_the_race(question: str):
    plain, planted = (rows(FundusSimVQA(bias=bias)) for bias in (0, 1))
    assert plain.equals(planted)
    asked = plain[plain["id"].str.endswith(question)]
    shares = asked.groupby("race")["target"].value_counts(normalize=True).unstack()
    assert (shares.max() - shares.min()).max() < 0.08


def test_quality_comes_in_thirds_unless_bias_takes_it_away():
    fair, planted = (rows(FundusSimVQA(questions="quality", bias=bias)) for bias in (0, 1))
    shares = fair.groupby("race")["target"].value_counts(normalize=True)
    assert (shares - 1 / 3).abs().max() < 0.07
    assert fair[["id", "prompt", "race"]].equals(planted[["id", "prompt", "race"]])
    assert set(planted.loc[planted["race"] == "black", "target"]) == {"poor"}
    assert planted[planted["race"] == "white"].equals(fair[fair["race"] == "white"])


def test_a_fingerprint_follows_questions_and_wordings(monkeypatch: pytest.MonkeyPatch):
    settings = (
        {},
        {"questions": "cup"},
        {"questions": "cup,diagnosis"},
        {"prompt": "Look."},
        {"seed": 1},
    )
    marks = [FundusSimVQA(**SMALL, **one).fingerprint() for one in settings]
    assert len({*marks, FundusSimReport(**SMALL).fingerprint(), FundusSim(**SMALL).fingerprint()}) == 7
    monkeypatch.setitem(QUESTIONS["cup"], "How large is the optic cup?", "It is {cup}.")
    assert FundusSimVQA(**SMALL).fingerprint() != marks[0]
    monkeypatch.setattr(fundus_sim, "DRAWING", 3)
    assert FundusSimVQA(**SMALL, questions="diagnosis").fingerprint() not in marks


@pytest.mark.parametrize("questions", ["", "cup,cup", "colour"])
def test_questions_must_be_some_of_those_there_are(questions: str):
    with pytest.raises(FairbenchError, match="questions"):
        FundusSimVQA(questions=questions)


def test_a_shortcut_is_taught_in_training_alone_and_shows_everywhere():
    plain, short = (
        FundusSim(bias=0.0, shortcut=s, train_size=8_000, val_size=2_000, test_size=4_000) for s in (0.0, 1.0)
    )
    before, after = plain.eyes(), short.eyes()
    held_out = before["split"] != "train"
    assert (before["target"] == after["target"])[held_out].all()
    assert (before["race"] == after["race"]).all()
    ill = after[~held_out].groupby("race")["target"].agg(lambda target: (target == "glaucoma").mean())
    mean = 0.149 + 0.5 * 0.082
    wanted = {
        race: 0.5 + 0.45 * (share - mean) for race, share in {"white": 0.0, "asian": 0.5, "black": 1.0}.items()
    }
    for race, share in wanted.items():
        assert ill[race] == pytest.approx(share, abs=0.04)
    black = after[(after["race"] == "black") & held_out].index[:20]
    light, dark = (np.concatenate(list(fundus_sim.draw(eyes.loc[black]))).mean() for eyes in (before, after))
    assert dark < light - 5
    white = after[(after["race"] == "white") & held_out].index[:5]
    assert (
        np.concatenate(list(fundus_sim.draw(before.loc[white])))
        == np.concatenate(list(fundus_sim.draw(after.loc[white])))
    ).all()
