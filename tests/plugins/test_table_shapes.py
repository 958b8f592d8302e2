"""Tables as hospitals and the hub keep them: workbooks, many labels, two eyes a row, images anywhere or inside."""

import gzip
import io
import json
import shutil
import unicodedata

import builders
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import noise, opened, sampled, write_dataset
from fairbench_plugins.datasets.table import Table

from fairbench import FairbenchError
from fairbench.data.dataset import rows

PLAIN = {"attribute_columns": "sex,age", "bins": "age: 0-44, 45+", "prompt": "Is it?", "positive": "ill"}


def people(count=40):
    return builders.people(count, classes=("well", "ill"))


def write(folder, frame=None, **options):
    return write_dataset(folder, people() if frame is None else frame, **options)


def at(root, **settings):
    return opened(root, Table, **{**PLAIN, **settings})


def same(one, other):
    pd.testing.assert_frame_equal(one.drop(columns="image"), other.drop(columns="image"))


def png(number):
    buffer = io.BytesIO()
    noise(number).save(buffer, "PNG")
    return buffer.getvalue()


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def test_a_workbook_and_a_packed_csv_say_the_same(tmp_path):
    expected = rows(at(write(tmp_path / "csv")))
    typed = people().assign(age=people()["age"].astype(float))
    write(tmp_path / "xlsx", name="people.csv")
    (tmp_path / "xlsx/people.csv").unlink()
    typed.to_excel(tmp_path / "xlsx/people.xlsx", index=False)
    pd.testing.assert_frame_equal(rows(at(tmp_path / "xlsx")), expected)
    write(tmp_path / "gz")
    text = (tmp_path / "gz/people.csv").read_bytes()
    (tmp_path / "gz/people.csv").unlink()
    (tmp_path / "gz/people.csv.gz").write_bytes(gzip.compress(text))
    pd.testing.assert_frame_equal(rows(at(tmp_path / "gz")), expected)
    (tmp_path / "xlsx/people.xlsx").write_bytes(b"PK\3\4 no workbook")
    with pytest.raises(FairbenchError, match=r"people\.xlsx cannot be read"):
        rows(at(tmp_path / "xlsx"))


def arrow(frame, inside=True):
    """Make the table that `datasets` writes: images inside as bytes and path, a class label in codes."""
    cells = [{"bytes": png(n) if inside else None, "path": name} for n, name in enumerate(frame["image"])]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = sorted(frame["target"].unique())
    columns = {
        **{
            name: pa.array(frame[name].where(frame[name].notna(), None)) for name in ("id", "cluster", "sex", "age")
        },
        "split": pa.array(frame["split"]),
        "image": pa.array(cells, kind),
        "target": pa.array(frame["target"].map(names.index).astype("int64")),
        "boxes": pa.array([[1, 2]] * len(frame)),
    }
    features = {"target": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    about = json.dumps({"info": {"features": features}})
    return pa.table(columns).replace_schema_metadata({"huggingface": about})


def save_to_disk(table, folder):
    """Lay a folder out as `datasets.save_to_disk` does, in two files."""
    folder.mkdir(parents=True)
    names = [f"data-{part:05d}-of-00002.arrow" for part in range(2)]
    for name, part in zip(names, (table.slice(0, 15), table.slice(15)), strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(part, max_chunksize=7)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def lay_out(form, folder):
    table, splits = arrow(people()), people()["split"].to_numpy()
    parts = {
        name: table.filter(pa.array(splits == name)).drop_columns("split") for name in ("train", "val", "test")
    }
    if form == "parquet":
        folder.mkdir()
        pq.write_table(table, folder / "people.parquet", row_group_size=7)
    elif form == "shards of the hub":
        (folder / "data").mkdir(parents=True)
        for name, part in parts.items():
            hub = {"val": "validation"}.get(name, name)
            pq.write_table(part, folder / "data" / f"{hub}-00000-of-00001.parquet")
    elif form == "saved":
        save_to_disk(table, folder)
    else:
        for name, part in parts.items():
            save_to_disk(part, folder / name)
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    return folder


@pytest.mark.parametrize("form", ["parquet", "shards of the hub", "saved", "saved in splits"])
def test_images_inside_the_table_are_those_of_its_rows(tmp_path, form):
    expected = rows(at(write(tmp_path / "plain")))
    dataset = at(lay_out(form, tmp_path / "inside"), positive="ill")
    table = rows(dataset)
    same(table, expected)
    assert dataset.classes == ("well", "ill"), "a class label goes by its name"
    for row in table.to_dict("records"):
        assert (np.asarray(dataset.image(row)) == np.asarray(noise(int(row["id"][1:])))).all()
    before = dataset.fingerprint()
    assert at(shutil.move(tmp_path / "inside", tmp_path / "moved"), positive="ill").fingerprint() == before


def two_views(frame, front=True, side=True):
    """Make a table that holds two images a row: the side view of row n is picture 100 + n, and row 5 has none."""
    table = arrow(frame, inside=front)
    kind = table["image"].type
    cells = [
        {"bytes": png(100 + n) if side and n != 5 else None, "path": f"side/{n}.png"} for n in range(len(frame))
    ]
    return table.append_column(pa.field("side", kind), pa.array(cells, kind))


def test_several_columns_of_images_inside_are_each_its_own(tmp_path):
    pq.write_table(two_views(people()), tmp_path / "people.parquet")
    dataset = at(tmp_path, image_column="image,side", positive="ill")
    table = rows(dataset)
    assert len(table) == 79
    for row in table.to_dict("records"):
        name, _, which = row["id"].rpartition("-")
        seed = int(name[1:]) + (100 if which == "side" else 0)
        assert (np.asarray(dataset.image(row)) == np.asarray(noise(seed))).all()
    dataset = at(tmp_path, image_column="image,side", together=True, positive="ill")
    for row in rows(dataset).to_dict("records"):
        number = int(row["id"][1:])
        shown = [np.asarray(image) for image in dataset.pictures(row)]
        expected = [number] if number == 5 else [number, 100 + number]
        assert [image.tobytes() for image in shown] == [np.asarray(noise(seed)).tobytes() for seed in expected]


@pytest.mark.parametrize("paths", [True, False])
def test_a_row_without_the_image_that_the_table_should_hold_is_named_and_can_be_left_out(tmp_path, paths):
    table = arrow(people())
    cells = [{"bytes": png(n), "path": f"{n}.png" if paths else None} for n in range(40)]
    cells[3], cells[5] = None, {"bytes": None, "path": "5.png" if paths else None}
    place = table.column_names.index("image")
    table = table.set_column(place, table.schema.field("image"), pa.array(cells, table["image"].type))
    pq.write_table(table, tmp_path / "people.parquet")
    with pytest.raises(FairbenchError, match=r"2 rows have no image \(the first: row 4\)\n.*only=image: \*'"):
        rows(at(tmp_path))
    assert len(rows(at(tmp_path, only="image: *"))) == 38


def test_images_partly_inside_are_refused(tmp_path):
    pq.write_table(two_views(people(), side=False), tmp_path / "people.parquet")
    with pytest.raises(FairbenchError, match="holds the images of image itself, of side paths"):
        rows(at(tmp_path, image_column="image,side"))


def test_two_columns_of_one_name_are_refused_in_parquet_as_in_csv(tmp_path):
    table = arrow(people())
    pq.write_table(table.append_column("sex", table["age"]), tmp_path / "people.parquet")
    with pytest.raises(FairbenchError, match=r"people\.parquet has two columns called 'sex'\nhint: rename one"):
        rows(at(tmp_path))


def test_what_macos_leaves_beside_shards_is_none(tmp_path):
    folder = lay_out("shards of the hub", tmp_path / "inside")
    (folder / "data/._train-00000-of-00001.parquet").write_bytes(b"\0\5\x16\7")
    assert len(rows(at(folder))) == 40


def test_a_table_of_several_files_is_read_whole_or_not_at_all(tmp_path):
    folder = lay_out("shards of the hub", tmp_path / "inside") / "data"
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00000-of-00003-0a1b2c.parquet")
    lacking = r"data lacks train-00001-of-00003\.parquet\nhint: it is one file of a table"
    with pytest.raises(FairbenchError, match=lacking):
        rows(at(tmp_path / "inside"))


def test_what_was_unpacked_in_part_is_unpacked_again(tmp_path):
    pq.write_table(arrow(people()), tmp_path / "people.parquet")
    dataset = at(tmp_path)
    note = dataset.path(rows(dataset)["image"][0]).with_name("columns.json")
    whole = note.read_text()
    note.write_text(whole[:40])
    assert len(rows(at(tmp_path))) == 40
    assert note.read_text() == whole


def test_images_beside_the_table_are_found_by_the_path_in_it(tmp_path):
    write(tmp_path)
    (tmp_path / "people.csv").unlink()
    pq.write_table(arrow(people(), inside=False), tmp_path / "people.parquet")
    assert rows(at(tmp_path))["image"].tolist() == people()["image"].tolist()


def test_a_damaged_image_inside_is_counted_like_any_other(tmp_path):
    frame = people()
    table = arrow(frame)
    cells = table["image"].to_pylist()
    cells[3]["bytes"] = cells[3]["bytes"][:60]
    table = table.set_column(table.schema.get_field_index("image"), "image", pa.array(cells, table["image"].type))
    pq.write_table(table, tmp_path / "people.parquet")
    with pytest.raises(FairbenchError, match="1 of 40 images cannot be read"):
        rows(at(tmp_path))
    assert len(rows(at(tmp_path, unreadable_share=0.1))) == 39


@pytest.mark.parametrize("name", ["state.json", "data-00001-of-00002.arrow"])
def test_a_saved_folder_that_is_not_whole_says_so(tmp_path, name):
    save_to_disk(arrow(people()), tmp_path / "saved")
    path = tmp_path / "saved" / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FairbenchError, match="is no whole folder of save_to_disk"):
        rows(at(tmp_path / "saved"))


# ── images as they lie ───────────────────────────────────────────────────────────────────────────

LAYOUTS = {
    "sub-folders that no cell names": lambda n: f"images_{n // 20:03d}/images/{n}.png",
    "suffix in capitals": lambda n: f"{n}.PNG",
    "another suffix": lambda n: f"scans/{n}.tiff",
    "no suffix": lambda n: f"{n}",
    "mixed suffixes": lambda n: f"{n}{('.png', '.JPG', '.tif', '')[n % 4]}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", sampled(["old/{n}.jpg", "{n}.png", "{n}", "old\\{n}.jpg"]))
def test_images_are_found_by_name_whatever_the_table_says(tmp_path, layout, cell):
    frame = people().assign(image=[cell.format(n=n) for n in range(40)])
    expected = at(write(tmp_path / "plain"))
    for n in range(40):
        path = tmp_path / "ward" / LAYOUTS[layout](n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(n))
    frame.to_csv(tmp_path / "ward/people.csv", index=False)
    dataset = at(tmp_path / "ward")
    same(rows(dataset), rows(expected))
    assert rows(dataset)["image"].tolist() == [LAYOUTS[layout](n) for n in range(40)]
    assert dataset.fingerprint() == expected.fingerprint(), "wherever they lie and whatever they are called"
    moved = LAYOUTS[layout](1) != "1" or cell != "{n}"
    assert any("images were found by their names" in text for text in dataset.warnings) == moved


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_letters_with_marks_are_the_same_however_a_system_writes_them(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    names = [unicodedata.normalize(form, f"Grün/Größe{n}.png") for n in range(40)]
    frame = people().assign(image=names, sex=["m\u00e4nnlich", "ma\u0308nnlich"] * 20)
    frame = frame.rename(columns={"sex": unicodedata.normalize(form, "Männlichkeit")})
    write(tmp_path, frame, images=[unicodedata.normalize(other, name) for name in names])
    dataset = at(tmp_path, attribute_columns=f"sex={unicodedata.normalize(other, 'Männlichkeit')}", bins="")
    assert len(rows(dataset)) == 40
    assert dataset.attributes["sex"] == ("männlich",)


def test_a_name_of_several_files_is_not_guessed(tmp_path):
    write(tmp_path)
    (tmp_path / "3.png").rename(tmp_path / "3.png.away")
    for ward in "ab":
        (tmp_path / ward).mkdir()
        (tmp_path / ward / "3.png").write_bytes(png(3))
    dataset = at(tmp_path, unreadable_share=0.1)
    assert len(rows(dataset)) == 39
    assert "1 image names stand for several files, such as 3.png: a/3.png, b/3.png" in dataset.warnings


def test_backslashes_are_separators(tmp_path):
    frame = people().assign(image=[f"scans\\{n}.png" for n in range(40)])
    write(tmp_path, frame, images=[f"scans/{n}.png" for n in range(40)])
    dataset = at(tmp_path)
    assert rows(dataset)["image"][3] == "scans/3.png"
    assert dataset.image(rows(dataset).iloc[3].to_dict()).size == (8, 6)
    assert dataset.warnings == []


def test_folders_of_older_systems_are_read(tmp_path):
    """A folder's name in Latin-1 is no UTF-8; the table says it in UTF-8, and the data folder may have one, too."""
    root = bytes(tmp_path) + b"/Universit\xe4t"
    inside = root + b"/Sp\xe4t"
    import os

    os.makedirs(inside)
    for n in range(40):
        with open(inside + f"/{n}.png".encode(), "wb") as file:
            file.write(png(n))
    frame = people().assign(image=[f"Spät/{n}.png" for n in range(40)])
    frame.to_csv(os.fsdecode(root) + "/people.csv", index=False)
    dataset = opened(type(tmp_path)(os.fsdecode(root)), Table, **PLAIN)
    assert len(rows(dataset)) == 40
    assert dataset.image(rows(dataset).iloc[0].to_dict()).size == (8, 6)
    assert dataset.fingerprint() == at(write(tmp_path / "plain")).fingerprint()


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────


def test_one_finding_out_of_several(tmp_path):
    findings = ["Effusion|Mass", "No Finding", "Mass", "effusion", "Mass | Effusion ", "Cardiomegaly"]
    frame = people(48).assign(target=findings * 8).drop(columns="split")
    dataset = at(write(tmp_path, frame), finding="Effusion", positive="")
    assert dataset.classes == ("no", "yes")
    assert rows(dataset)["target"].tolist() == ["yes", "no", "no", "yes", "yes", "no"] * 8
    assert "yes = Effusion among the labels of target" in dataset.notes
    with pytest.raises(FairbenchError, match=r"no row of target lists 'Nodule'\nhint: it lists cardiomegaly, eff"):
        rows(at(tmp_path, finding="Nodule", positive=""))
    dataset = at(tmp_path, positive="")
    rows(dataset)
    assert any("target has combinations such as 'effusion|mass'" in text for text in dataset.warnings)


@pytest.mark.parametrize("word", ["Unknown", "n/a", "k. A.", "Mass|unknown", "|", ""])
def test_a_cell_that_tells_nothing_is_not_without_the_finding(tmp_path, word):
    write(tmp_path, people(48).assign(target=["Effusion|unknown", word, "Mass"] * 16).drop(columns="split"))
    settings = {"finding": "Effusion", "positive": "", "unrecorded": "k. A."}
    with pytest.raises(FairbenchError, match=r"16 rows have no target \(the first: line 3\)"):
        rows(at(tmp_path, **settings))
    left_out = rows(at(tmp_path, **settings, only="target: Effusion|unknown, Mass"))
    assert left_out["target"].tolist() == ["yes", "no"] * 16


def test_labels_go_by_their_other_words(tmp_path):
    cells = ["Pleural Effusion|Mass", "Mass", "Effusion, left", "no finding"]
    write(tmp_path, people(48).assign(target=cells * 12).drop(columns="split"))
    values = 'target: pleural effusion=effusion, "Effusion, left"=left|effusion, tumour=mass'
    dataset = at(tmp_path, finding="Effusion", positive="", values=values)
    assert rows(dataset)["target"].tolist() == ["yes", "no", "yes", "no"] * 12
    (said,) = (text for text in dataset.warnings if "tumour" in text or "effusion" in text)
    assert said.startswith("table.values: target is nowhere 'tumour', to be renamed 'mass': it has effusion, left")
    one_hot = people(48).drop(columns=["target", "split"]).assign(N=["1", "0"] * 24, D=["0", "1"] * 24)
    write(tmp_path / "eyes", one_hot)
    settings = {"one_hot": "N,D", "positive": "ill"}
    assert at(tmp_path / "eyes", **settings, values="target: n=well, d=ill").classes == ("well", "ill")


@pytest.mark.parametrize(
    "cell",
    ["Effusion, Mass", "mass;effusion", "Effusion/Mass", "['Mass', 'Effusion']", "A\nEffusion", "effusion?"],
)
def test_labels_that_something_else_separates_are_refused(tmp_path, cell):
    write(tmp_path, people(48).assign(target=["Effusion|Mass", "Mass", cell] * 16).drop(columns="split"))
    with pytest.raises(
        FairbenchError, match=r"in line \d, where no \| parts 'Effusion' from the rest\nhint: write \|"
    ):
        rows(at(tmp_path, finding="Effusion", positive=""))


def test_labels_that_hold_the_finding_are_cautioned(tmp_path):
    cells = ["Effusion|Mass", "Pleural Effusion", "no effusion|-", "Effusions", "pleural_effusion"]
    write(tmp_path, people(50).assign(target=cells * 10).drop(columns="split"))
    dataset = at(tmp_path, finding="Effusion", positive="")
    assert rows(dataset)["target"].tolist() == ["yes", "no", "no", "no", "no"] * 10
    assert (
        "target lists no effusion, pleural effusion, pleural_effusion, which is not effusion and counts as no: "
        "where it is meant, --set 'table.values=target: no effusion=effusion'"
    ) in dataset.warnings
    assert any(text.startswith("target lists '-', which may stand for nothing") for text in dataset.warnings)


@pytest.mark.parametrize("word", ["ja", "-1", "2", "0.7"])
def test_a_one_hot_column_says_yes_or_no(tmp_path, word):
    frame = (
        people(48)
        .drop(columns=["target", "split"])
        .assign(N=["1", "0", "", "n/a"] * 12, D=["0", "x", "1", word] * 12)
    )
    settings = {"one_hot": "N,D", "positive": "d"}
    with pytest.raises(FairbenchError, match=f"D is '{word}' in line 5, which is neither yes"):
        rows(at(write(tmp_path, frame), **settings))
    assert rows(at(tmp_path, **settings, only=f"D: !{word}"))["target"].tolist() == ["n", "d", "d"] * 12


def test_one_of_several_columns(tmp_path):
    frame = people(48).drop(columns=["target", "split"])
    number = np.arange(48) % 6
    frame["N"], frame["D"], frame["G"] = (np.isin(number, which).astype(int) for which in ([0, 3], [1, 4], [2, 4]))
    dataset = at(write(tmp_path, frame), one_hot="N,D,G", positive="", order="n,d,g")
    assert rows(dataset)["target"].tolist() == ["n", "d", "g", "n"] * 8
    assert "16 of 48 rows with none or several of N, D, G left out" in dataset.warnings


@pytest.mark.parametrize("word", ["n/a", "unknown"])
def test_a_word_for_nothing_names_no_image(tmp_path, word):
    frame = people(24).drop(columns="split").assign(side=[f"{n}.png" if n % 4 else word for n in range(24)])
    write(tmp_path, frame)
    assert len(rows(at(tmp_path, image_column="image,side"))) == 42
    together = rows(at(tmp_path, image_column="image,side", together=True))["further"]
    assert together.map(len).tolist() == [0, 1, 1, 1] * 6


def test_two_images_a_row(tmp_path):
    frame = people(24).drop(columns=["cluster", "split", "image", "target"])
    frame["Left"], frame["Right"] = ([f"{n}{side}.png" for n in range(24)] for side in "lr")
    frame["DL"], frame["DR"] = ["0", "1"] * 12, ["0", "0", "1"] * 8
    frame.loc[5, "Right"] = None
    write(tmp_path, frame, images=[*frame["Left"], *frame["Right"].dropna()])
    settings = {"image_column": "Left,Right", "positive": "", "cluster_column": "cluster"}
    dataset = at(tmp_path, target_column="DL,DR", **settings)
    table = rows(dataset).set_index("id")
    assert len(table) == 47
    assert table.loc["i003-Left", ["cluster", "target", "image"]].tolist() == ["i003", "1", "3l.png"]
    assert table.loc["i003-Right", ["cluster", "target", "image"]].tolist() == ["i003", "0", "3r.png"]
    assert table.groupby("cluster")["split"].nunique().max() == 1, "two eyes of one patient stay together"
    assert "1 of 48 images are named by no cell and were left out" in dataset.warnings
    assert set(rows(at(tmp_path, target_column="DL", **settings)).groupby("cluster")["target"].nunique()) == {1}
    again = frame.assign(id=["i000", *frame["id"][:-1]], Right=frame["Left"])
    write(tmp_path, again, images=frame["Left"])
    with pytest.raises(
        FairbenchError, match="2 of id stand in several rows, for instance 'i000-Left' in line 2 and 3"
    ):
        rows(at(tmp_path, target_column="DL,DR", **settings))
    with pytest.raises(FairbenchError, match="target_column names 3 and image_column 2"):
        at(tmp_path, target_column="DL,DR,DL", **settings)


def test_rows_are_kept_as_asked_and_what_is_left_out_is_said(tmp_path):
    frame = people(48).drop(columns="split")
    frame["View"], frame["age"] = ["PA", "AP", "L", "pa"] * 12, [f"{10 + n:03d}Y" for n in range(48)]
    frame.loc[8, "target"], frame.loc[9, "View"] = "n/a", None
    write(tmp_path, frame)
    dataset = at(tmp_path, only='View: PA, AP; age: 18+; target: *; "sex": !male')
    number = np.arange(48)
    view, old = np.isin(number % 4, (0, 1, 3)) & (number != 9), 10 + number >= 18
    kept = view & old & (number != 8) & ~np.isin(number % 3, (1, 2))  # who is male or has no sex
    assert rows(dataset)["id"].tolist() == [f"i{n:03d}" for n in np.flatnonzero(kept)]
    assert f"{(~view).sum()} of 48 rows left out by View: PA, AP" in dataset.warnings
    assert f"{(view & ~old).sum()} of 48 rows left out by age: 18+" in dataset.warnings
    assert "1 of 48 rows left out by target: *" in dataset.warnings
    wrongs = {"View: CT": "no row has 'View: CT'", "View": "is not `column: item", "Q: 1": "no column 'Q'"}
    for wrong, message in wrongs.items():
        with pytest.raises(FairbenchError, match=message):
            rows(at(tmp_path, only=wrong))


@pytest.mark.parametrize(
    ("only", "kept"),
    [
        ("weight: 100+", lambda n: 80 + 2 * n >= 100),
        ("weight: 0-90, 130+", lambda n: 80 + 2 * n <= 90 or 80 + 2 * n >= 130),
        ("weight: !100+", lambda n: 80 + 2 * n < 100),
        ("year: 2010+", lambda n: n >= 10),
        ("year: !2010-2019", lambda n: n < 10 or n >= 20),
        ("age: !<30", lambda n: n % 90 >= 20),
        ("age: 20+, !30-39", lambda n: n % 90 >= 10 and not 20 <= n % 90 < 30),
        ("seen at: 18+", lambda n: n % 90 >= 8),  # a column of ages by how they are written
        ("months: 18+", lambda n: n >= 18 * 12),
    ],
)
def test_ranges_of_what_is_kept(tmp_path, only, kept):
    number = np.arange(240)
    frame = people(240).drop(columns="split").assign(
        weight=80 + 2 * number, year=2000 + number, **{"seen at": [f"{10 + n % 90:03d}Y" for n in number]},
        age=[str(10 + n % 90) for n in number], months=[f"{n:03d}M" for n in number],
    )  # fmt: skip
    dataset = at(write(tmp_path, frame, images=[]), only=only)
    dataset.unseen = True
    assert rows(dataset)["id"].tolist() == [f"i{n:03d}" for n in number if kept(n)]
    assert not any("changes nothing" in text for text in dataset.warnings)


@pytest.mark.parametrize("item", ["!mle", "!<50", "!unrecorded", "femal", "unknown"])
def test_an_item_that_no_cell_is_meant_by_is_cautioned(tmp_path, item):
    write(tmp_path, people().assign(sex=["female", "male", "unknown", "NA"] * 10).drop(columns="split"))
    dataset = at(tmp_path, only=f"sex: female, {item}")
    assert set(rows(dataset)["sex"]) == {"female"}
    assert (
        f"table.only: '{item}' changes nothing: no cell of sex is meant by it ('female', 'male')"
        in dataset.warnings
    )
    dataset = at(tmp_path, only="sex: !unknown, *, !male")
    rows(dataset)
    assert not any("changes nothing" in text for text in dataset.warnings)


def test_separators_inside_renamed_values(tmp_path):
    frame = people().assign(sex=["female, cis", "male; cis", "a:b", "x=y"] * 10)
    values = 'sex: "female, cis"=female, "male; cis"=male, "a:b"="a, b", "x=y"=z'
    dataset = at(write(tmp_path, frame), values=values)
    assert rows(dataset)["sex"].tolist() == ["female", "male", "a, b", "z"] * 10
    with pytest.raises(FairbenchError, match="quote that never ends"):
        at(tmp_path, values='sex: "a=b')


def test_an_id_may_be_refused_or_used_otherwise(tmp_path):
    frame = people().assign(id=[f"p{n // 2}" for n in range(40)]).drop(columns="cluster")
    dataset = at(write(tmp_path, frame), id_column="none", cluster_column="id")
    expected = rows(dataset)
    assert expected["id"].tolist() == sorted(people()["image"])
    same(rows(at(tmp_path, cluster_column="id")), expected)
    assert expected["cluster"].nunique() == 20


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def test_words_for_nothing_are_added_and_may_be_kept(tmp_path):
    frame = people().assign(sex=["NA", "k. A.", "unknown", "None", "female"] * 8)
    assert rows(at(write(tmp_path, frame), unrecorded="k. A."))["sex"].notna().sum() == 8
    kept = rows(at(tmp_path, unrecorded="k. A.", recorded="NA"))
    assert kept["sex"].fillna("-").tolist()[:5] == ["na", "-", "-", "-", "female"]
    renamed = rows(at(tmp_path, unrecorded="k. A.", values="sex: NA=namibia"))
    assert renamed["sex"].fillna("-").tolist()[:5] == ["namibia", "-", "-", "-", "female"]


@pytest.mark.parametrize(
    ("column", "written", "said"),
    [
        ("sex", ["M", "male", "F", "F"], "sex has m and male, which may be one group"),
        ("sex", ["F", "M", "W", "M"], "sex has f and w, which may be one group"),
        ("sex", ["F", "M", "declined", "M"], "sex has 'declined', which may stand for nothing"),
        ("sex", ["F|M", "M", "F", "M"], "sex has combinations such as 'f|m'"),
        ("target", ["ill", "sick|ill", "well", "ill"], "target has combinations such as 'sick|ill'"),
        ("target", ["1", "0", "01", "2"], "target has 01 and 1, which may be one group"),
        ("target", ["1", "0", "1,0", "2"], "target has 1 and 1,0, which may be one group"),
        ("sex", ["male", "male\u200b", "F", "F"], "sex has male and male\u200b, which may be one group"),
        ("sex", ["Male", "ｍale", "F", "F"], "sex has male and ｍale, which may be one group"),
        (
            "sex",
            ["non-binary", "non binary", "F", "F"],
            "sex has non binary and non-binary, which may be one group",
        ),
    ],
)
def test_groups_that_can_hardly_be_meant_are_cautioned(tmp_path, column, written, said):
    dataset = at(write(tmp_path, people().assign(**{column: written * 10})), positive="")
    if column == "sex":
        dataset = at(tmp_path)
    rows(dataset)
    assert any(text.startswith(said) for text in dataset.warnings), dataset.warnings


def test_the_codes_of_chexpert_are_no_classes(tmp_path):
    write(tmp_path, people().assign(target=["1.0", "0.0", "-1.0", "0.0"] * 10))
    with pytest.raises(FairbenchError, match="target has the value -1, which in CheXpert's files means uncertain"):
        rows(at(tmp_path, positive=""))
    assert rows(at(tmp_path, positive="", only="target: 0, 1"))["target"].isin(["0", "1"]).all()


def test_ages_as_written(tmp_path):
    written = ["060Y", "018M", "90+", ">89", "40-50", "33"]
    frame = people(48).assign(age=written * 8)
    bins = "age: 0-39, 40-59, 60+"
    table = rows(at(write(tmp_path, frame), bins=bins))
    assert table["age"].tolist() == ["60+", "0-39", "60+", "60+", "40-59", "0-39"] * 8
    for odd in ("411Y", "30-50", "411"):
        write(tmp_path, people(48).assign(age=[*written * 7, *written[:5], odd]))
        with pytest.raises(FairbenchError, match=f"age is '{odd.lower()}' in line 49, which lies in none of"):
            rows(at(tmp_path, bins=bins))


def test_the_cases_that_an_earlier_version_read_wrong(shared, tmp_path):
    """Small tables as they came, a few rows each: splits and images are not what they are about."""
    many = pd.read_csv(shared / "cases/tables/many_labels.csv")
    many = pd.concat([many] * 12, ignore_index=True)
    many["Image Index"] = [f"{n}.png" for n in range(48)]
    write(tmp_path / "many", many, images=many["Image Index"])
    settings = {
        "image_column": "Image Index", "target_column": "Finding Labels", "finding": "Effusion", "bins": "",
        "cluster_column": "none", "attribute_columns": "sex=Patient Sex", "positive": "", "id_column": "none",
    }  # fmt: skip
    dataset = at(tmp_path / "many", **settings)
    read_table = rows(dataset).set_index("image")["target"]
    assert [read_table[f"{n}.png"] for n in range(4)] == ["yes", "no", "no", "yes"]
    assert any("sex has f and w, which may be one group" in text for text in dataset.warnings)
    eyes = pd.read_csv(shared / "cases/tables/two_eyes_a_row.csv")
    eyes = pd.concat([eyes] * 12, ignore_index=True).assign(ID=range(24))
    eyes["Left-Fundus"], eyes["Right-Fundus"] = (
        [f"{n}_{side}.jpg" for n in range(24)] for side in ("left", "right")
    )
    write(tmp_path / "eyes", eyes, images=[*eyes["Left-Fundus"], *eyes["Right-Fundus"]])
    settings = {
        "id_column": "ID", "image_column": "Left-Fundus,Right-Fundus", "one_hot": "N,D,G", "positive": "d",
        "attribute_columns": "sex=Patient Sex,age=Patient Age", "bins": "age: 0-59, 60+",
    }  # fmt: skip
    table = rows(at(tmp_path / "eyes", **settings))
    assert (len(table), table["cluster"].nunique()) == (48, 24)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────


def test_limit_looks_only_at_what_it_keeps(tmp_path):
    dataset = at(write(tmp_path), limit=12)
    kept = rows(dataset)
    assert 8 <= len(kept) <= 16
    assert set(dataset.verdicts) == set(kept["image"])
    whole = rows(at(tmp_path))
    assert kept["id"].isin(whole["id"]).all()


def test_a_table_can_be_read_before_its_images_are_there(tmp_path):
    write(tmp_path)
    expected = rows(at(tmp_path))
    for path in tmp_path.glob("*.png"):
        path.unlink()
    dataset = at(tmp_path)
    dataset.unseen = True
    same(rows(dataset), expected)
    with pytest.raises(FairbenchError, match="none of the 40 images is there"):
        rows(at(tmp_path))
