"""Tables of words: no cell moves, none is dropped, whatever wrote the file."""

import gzip
import json
import re
import zipfile

import openpyxl
import pytest

from fairbench import FairbenchError, read_table

TEXT = 'id,note,sex\n1,"a, b",f\n2,say ""x"",m\n'


def read(folder, data, **options):
    path = folder / "t.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(path, "toy", "get it again", **options)


def test_cells_stay_where_they_are_and_the_index_tells_the_line(tmp_path):
    table = read(tmp_path, 'id,note,sex\n1,"a,\nb",f\n\n2,, m \n ,,\n')
    assert table.values.tolist() == [["1", "a,\nb", "f"], ["2", None, "m"]]
    assert table.index.tolist() == [3, 5]


def test_a_first_line_may_be_long(tmp_path):
    long = "x" * 200_000
    assert read(tmp_path, f"id,{long}\n1,2\n")[long].tolist() == ["2"]


def test_rows_of_a_workbook_may_end_at_their_last_cell(tmp_path):
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for row in (["id", "note", "sex"], ["1"], ["2", "b", "m"]):
        sheet.append(row)
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx", "toy", "get it again")
    assert table.values.tolist() == [["1", None, None], ["2", "b", "m"]]


def workbook(folder, *changes, values=("m", 3)):
    """Write a workbook of a header and a row, change its files, and read it."""
    book = openpyxl.Workbook()
    book.active.append(["sex", "age"])
    book.active.append(list(values))
    book.save(folder / "made.xlsx")
    with zipfile.ZipFile(folder / "made.xlsx") as made, zipfile.ZipFile(folder / "t.xlsx", "w") as changed:
        for name in made.namelist():
            text = made.read(name).decode()
            for pattern, new in changes:
                text = re.sub(pattern, new, text)
            changed.writestr(name, text)
    return read_table(folder / "t.xlsx", "toy", "get it again")


def test_merged_cells_are_refused_where_they_hold_a_value(tmp_path):
    """The rows after the first would be patients of no recorded sex."""
    book = openpyxl.Workbook()
    for row in (["id", "sex", "note"], [1, "m", None], [2, None, None], [3, "f", None]):
        book.active.append(row)
    book.active.merge_cells("C2:C4")
    book.create_sheet("notes").merge_cells("A1:B1")
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx", "toy", "get it again")
    assert table["sex"].tolist() == ["m", None, "f"]
    book.active.merge_cells("B2:B3")
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(FairbenchError, match=r"t\.xlsx: B2:B3 are merged into one cell.*\nhint: unmerge them"):
        read_table(tmp_path / "t.xlsx", "toy", "get it again")


COMPUTED = ('fullCalcOnLoad="1"', "")
RESULT = r"(<f>[^<]*</f>)<v(?: ?/>|></v>)"


@pytest.mark.parametrize("said", ['<dimension ref="A1"/>', '<dimension ref="A1:A2"/>', ""])
def test_a_workbook_is_read_whole_whatever_size_it_claims(tmp_path, said):
    assert workbook(tmp_path, (r"<dimension [^>]*>", said)).values.tolist() == [["m", "3"]]


def test_formulas_count_by_what_they_gave(tmp_path):
    for result, expected in (("<v>4</v>", "4"), ("<v>4.5</v>", "4.5")):
        read = workbook(tmp_path, COMPUTED, (RESULT, rf"\1{result}"), values=("m", "=1+3"))
        assert read.values.tolist() == [["m", expected]]
    empty = workbook(tmp_path, COMPUTED, (rf'<c r="B2"[^>]*>{RESULT}', r'<c r="B2" t="str">\1<v></v>'),
                     values=("m", '=IF(A2="","","")'))  # fmt: skip
    assert empty.values.tolist() == [["m", None]], "an empty text is a result, too"


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        (("m", "=1+3"), [], "B2 has a formula that was never computed"),
        (("m", "=1+3"), [COMPUTED], "B2 has a formula"),
        (("m", "=1+3"), [COMPUTED, (RESULT, r"\1")], "B2 has a formula"),
        (("m", "=1+3"), [(RESULT, r"\1<v>0</v>")], "B2 has a formula"),  # a 0 that its writer did not compute
        (("m", 1.2e19), [], "B2 is 12000000000000000000 as floating point, which may have lost its last digits"),
        ((2.0**53, 3), [], "A2 is 9007199254740992 as floating point"),
        (
            (-(2**60), 3),
            [],
            "A2 is -1152921504606846976 as floating point",
        ),  # what programs write, not what they keep
    ],
)
def test_what_a_workbook_does_not_hold_is_refused_by_its_cell(tmp_path, values, changes, message):
    with pytest.raises(FairbenchError, match=f"^toy: .*t.xlsx: {message}"):
        workbook(tmp_path, *changes, values=values)


PLAIN = 'id,note,sex\n1,"a, b",f\n2,"c; d",m\n'


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\r\n"),
        f"sep=,\n{PLAIN}",
        "SEP=;\r\n" + 'id;note;sex\r\n1;"a, b";f\r\n2;"c; d";m\r\n',
        "\ufeffsep=^\rid^note^sex\r1^a, b^f\r2^c; d^m\r",
    ],
)
def test_lines_end_and_separators_are_said_as_old_and_new_spreadsheets_do(tmp_path, data):
    assert read(tmp_path, data).values.tolist() == [["1", "a, b", "f"], ["2", "c; d", "m"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_header_may_have_line_breaks(tmp_path, end):
    table = read(tmp_path, f'"id{end}of, the, row";sex{end}1;f{end}2;m{end}')
    assert list(table.columns) == [f"id{end}of, the, row", "sex"]
    assert table.values.tolist() == [["1", "f"], ["2", "m"]]
    with pytest.raises(FairbenchError, match="line 4 has 3 cells, its header 2"):
        read(tmp_path, f"sep=;{end}id;sex{end}1;f{end}2;m;x{end}")


OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.xls", "t.jsonl"])
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (OLE, r"an old workbook \(\.xls\), or one with a password"),
        (b"PK\3\4 and so on", "a workbook or another archive"),
        (b"PAR1 and so on", "parquet"),
        (json.dumps({"id": 1}).encode(), "JSON"),
        (b'\xef\xbb\xbf \n[ {"id": 1}]', "JSON"),
        (b"<HTML><table><tr><td>id", "a web page or XML"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_a_file_that_is_something_else_is_told_what_it_is(tmp_path, name, data, kind):
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(
        FairbenchError, match=f"^toy: .*{name} is {kind}, not a table of text\nhint: save the table"
    ):
        read_table(path, "toy", "get it again")


def test_what_is_called_a_workbook_and_is_none(tmp_path):
    path = tmp_path / "t.xlsx"
    for data, said in ((OLE, "one with a password"), (TEXT.encode(), "is no workbook\nhint: a table of text has")):
        path.write_bytes(data)
        with pytest.raises(FairbenchError, match=said):
            read_table(path, "toy", "get it again")


def test_gzip_is_told_by_content(tmp_path):
    assert read(tmp_path, gzip.compress(TEXT.encode())).equals(read(tmp_path, TEXT))


def test_columns_are_chosen_by_any_of_their_names_in_any_capitals(tmp_path):
    table = read(tmp_path, TEXT, columns={"who": ("patient", "ID"), "sex": ("Sex",)})
    assert table.values.tolist() == [["1", "f"], ["2", "m"]]
    with pytest.raises(FairbenchError, match="lacks the columns race; it has id, note, sex"):
        read(tmp_path, TEXT, columns={"race": ("race", "ethnicity")})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,b\n1,2,3\n4,5\n", "line 2 has 3 cells, its header 2"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, its header 2"),
        ('a,b\n1,"2\n3,4\n', "line 3: unexpected end of data"),
        ('a,b,c\n1,"2,3\n4,5",6\n', "line 3 ends a cell of several lines"),
        ('a,b\n"1"2,3\n', "line 2: ',' expected after"),
        ("a,a\n1,2\n", "two columns called 'a'"),
        ("a,b\n\0,2\n", "holds NUL bytes"),
        (b"a,b\n\xff,2\n", "not written in utf-8 .from byte 5 on"),
        ("\n \n", "is empty"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-4], "cannot be read"),
    ],
)
def test_what_cannot_be_read_cell_by_cell_is_refused(tmp_path, data, message):
    with pytest.raises(FairbenchError, match=f"^toy: .*t.csv.*{message}"):
        read(tmp_path, data, lines=False)
