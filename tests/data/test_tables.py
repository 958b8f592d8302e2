"""Tables of words: no cell moves, none is dropped, whatever wrote the file."""

import gzip

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
