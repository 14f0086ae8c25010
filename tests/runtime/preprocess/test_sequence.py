"""CSV files as people have them: foreign, ragged, damaged."""

import csv
import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.sequence import SequencePreprocessing

CUT = SequencePreprocessing(("ax", "ay", "az"), window=4, hop=2, rate_hz=50.0)


TINY = np.finfo(np.float32).tiny


@pytest.fixture
def read(tmp_path):
    """Return a function that writes text or bytes to a file and reads it as a sequence."""

    def write_and_read(content, cut=CUT):
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / "walk.csv").write_bytes(raw)
        return cut.read(tmp_path / "walk.csv")

    return write_and_read


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=8),
    order=st.permutations(["ax", "ay", "az", "time", "note, with comma"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
)
def test_every_float32_reads_back_exactly(tmp_path_factory, rows, order, quoting, newline, bom):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, order, quoting=quoting, lineterminator=newline)
    writer.writeheader()
    for ax, ay, az in rows:
        others = {"time": "12:00", "note, with comma": 'a "b"\n c'}
        writer.writerow({"ax": ax, "ay": ay, "az": az, **others})
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    found = CUT.read(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(rows, np.float32))


GOOD = {
    "plain": "ax,ay,az\n1,2,3\n4,5,6\n",
    "no newline at the end": "ax,ay,az\n1,2,3\n4,5,6",
    "blank lines": "ax,ay,az\n\n1,2,3\n\n\n4,5,6\n\n",
    "other order": "az,ax,ay\n3,1,2\n6,4,5\n",
    "extra columns": "t,ax,ay,az,note\n0,1,2,3,x\n1,4,5,6,NaN\n",
    "nameless column": ",ax,ay,az\n0,1,2,3\n1,4,5,6\n",
    "spaces": "ax, ay,  az\n 1, 2 , 3\n4 ,5 ,6 \n",
    "quoted": '"ax","ay","az"\n"1","2","3"\n"4","5","6"\n',
    "quoted after a space": '"ax", "ay", "az"\n"1", "2", "3"\n4, 5, 6\n',
    "quoted comma in a foreign column": 'note,ax,ay,az\n"a,b",1,2,3\n",",4,5,6\n',
    "signs and exponents": "ax,ay,az\n+1,2.0,3e0\n.4e1,50E-1,6.\n",
    "byte order mark": "\ufeffax,ay,az\n1,2,3\n4,5,6\n",
    "byte order mark and quotes": '\ufeff"ax","ay","az"\n1,2,3\n4,5,6\n',
    "windows": "ax,ay,az\r\n1,2,3\r\n4,5,6\r\n",
    "old mac": "ax,ay,az\r1,2,3\r4,5,6\r",
    "foreign names": "größe,ax,ay,az\n0,1,2,3\n0,4,5,6\n",
}


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_files_that_are_read(read, kind):
    np.testing.assert_array_equal(read(GOOD[kind]), np.array([[1, 2, 3], [4, 5, 6]], np.float32))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("is empty", "first line must name the columns")),
        ("\ufeff", ("is empty", "first line")),
        ("\n\n", ("is empty", "first line")),
        ("ax,ay,az", ("empty sequence", "no rows")),
        ("ax,ay,az\n", ("empty sequence", "no rows")),
        ("ax,ay,az\n\n\r\n", ("empty sequence", "no rows")),
        ("1,2,3\n4,5,6\n", ("no column 'ax', 'ay', 'az'", "ax, ay, az", "has '1', '2', '3'")),
        ("ax,az\n1,2\n", ("no column 'ay':", "ax, ay, az", "has 'ax', 'az'")),
        ("AX,ay,az\n1,2,3\n", ("no column 'ax':", "has 'AX', 'ay', 'az'")),
        ("ax;ay;az\n1;2;3\n", ("no column 'ax', 'ay', 'az'", "has 'ax;ay;az'")),
        ("ax\tay\taz\n1\t2\t3\n", ("no column 'ax', 'ay', 'az'",)),
    ],
)
def test_header_that_is_missing_or_another(refused, read, content, words):
    with refused(BadInputError, "walk.csv", *words):
        read(content)


def test_long_header_is_not_shown_whole(refused, read):
    names = ",".join(f"column{i}" for i in range(5000))
    with refused(BadInputError, "no column 'ax'", "column19"):
        read(names + "\n")
    with pytest.raises(BadInputError) as caught:
        read(names + "\n")
    assert "column20" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["x", "", "-", "1.2.3", "0x10", "1 2", "1e", "--1", "1.0f", "NULL", "None", "true", "½",
     "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e400", "-1e400"],
)  # fmt: skip
@pytest.mark.parametrize("column", ["ax", "az"])
def test_value_that_is_no_finite_number(refused, read, text, column):
    bad = {"ax": "1", "ay": "2", "az": "3", column: text}
    content = "ax,ay,az\n" + "1,2,3\n" * 5 + ",".join(bad.values()) + "\n1,2,3\n"
    with refused(BadInputError, "walk.csv", "line 7:", f"'{column}' is {text!r}", "finite"):
        read(content)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", ["3.5e38", "-3.5e38", "1e39", "1" + "0" * 39])
def test_value_that_overflows_float32(refused, read, text):
    with refused(BadInputError, "line 2:", f"'ay' is {text!r}", "finite number"):
        read(f"ax,ay,az\n1,{text},3\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3.4028235e38", np.finfo(np.float32).max),
        ("-3.4028235e38", np.finfo(np.float32).min),
        ("1e-400", 0.0),
        ("1e-60", 0.0),
        (repr(float(TINY)), TINY),
        ("0.1", np.float32(0.1)),
        ("0." + "3" * 5000, np.float32(1 / 3)),
    ],
    ids=["max", "min", "underflow", "no subnormal", "tiny", "tenth", "5000 digits"],
)
def test_extreme_values_that_fit(read, text, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(f"ax,ay,az\n1,{text},3\n")[0, 1] == value


@pytest.mark.parametrize(
    ("row", "cells"), [("1", 1), ("1,2", 2), ('"1,2,3"', 1), ("1,2,3,4", 4), ("0,5,0,7,1,0", 6)]
)
def test_row_of_another_width(refused, read, row, cells):
    with refused(BadInputError, "line 3", f"has {cells} cells, the header has 3"):
        read(f"ax,ay,az\n1,2,3\n{row}\n")


def test_column_that_stands_twice(refused, read):
    with refused(BadInputError, "2 columns 'ax'"):
        read("ax,ay,az,ax\n1,2,3,4\n")


@pytest.mark.parametrize("text", ["1_000", "\u0661\u0662"])
def test_spellings_only_python_knows(refused, read, text):
    with refused(BadInputError, "line 2: 'ay' is", "finite number"):
        read(f"ax,ay,az\n1,{text},3\n")


@pytest.mark.parametrize(
    "header", ['"ax,ay\n' + "1,2\n" * 1000, '"ax\nfoo",ay\n1,2\n', "x\u2028y,ay\n1,2\n"]
)
def test_odd_headers_are_shown_in_one_short_line(refused, read, header):
    with refused(BadInputError, "no column"):
        read(header)


def test_cells_are_shortened(read):
    with pytest.raises(BadInputError) as caught:
        read("ax,ay,az\n1," + "x" * 100_000 + ",3\n")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("content", ["ax ,ay, az\n1,2,3\n", "\n\nax,ay,az\n1,2,3\n"])
def test_spaces_and_blank_lines_around_the_header(read, content):
    np.testing.assert_array_equal(read(content), np.array([[1, 2, 3]], np.float32))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("ax,ay,az\r\n1,2,3\r\nx,2,3\r\n", 3),
        ("ax,ay,az\n\n\n1,2,3\n\nx,2,3\n", 6),
        ('note,ax,ay,az\n"one\ntwo",1,2,3\n"a",x,2,3\n', 4),
        ("ax,ay,az\n" + "1,2,3\n" * 999 + "1,2,x", 1001),
    ],
)
def test_line_numbers_are_those_of_an_editor(refused, read, content, line):
    with refused(BadInputError, f"line {line}:"):
        read(content)


def test_quote_that_never_ends(refused, read):
    with refused(BadInputError, "walk.csv, line", "has 1 cells"):
        read('ax,ay,az\n"1,2,3\n4,5,6\n')


@pytest.mark.parametrize(
    "content",
    [
        "größe,ax,ay,az\n0,1,2,3\n".encode("latin-1"),
        b"ax,ay,az,note\n1,2,3,\xb5\n",
        "ax,ay,az\n1,2,3\n".encode("utf-16"),
        b"ax,ay,az\n" + b"1,2,3\n" * 20_000 + b"\xff",
        b"\x89PNG\r\n\x1a\n",
        b"ax,ay,az\n" + b"1" * 200_000 + b",2,3\n",
    ],
    ids=["header", "value", "utf-16", "late", "picture", "field too large"],
)
def test_file_that_is_no_text(refused, read, content):
    with refused(BadInputError, "walk.csv", "not a readable CSV file"):
        read(content)


@pytest.mark.parametrize("name", ["gone.csv", "."])
def test_path_that_is_no_file(refused, tmp_path, name):
    with refused(BadInputError, "not a readable CSV file"):
        CUT.read(tmp_path / name)


def test_nul_bytes(refused, read):
    with refused(BadInputError, "walk.csv"):
        read(b"ax,ay,az\n1,2\x00,3\n")
