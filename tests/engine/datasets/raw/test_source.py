"""Files in every form as one table: headers, partitions, drifting types, separators, missing values."""

import contextlib
import gzip
from pathlib import Path

import polars as pl
import pytest

from engine.common.errors import UserError
from engine.datasets.raw.moments import times
from engine.datasets.raw.raw_files import Form
from engine.datasets.raw.source import Source
from engine.datasets.raw.values import feature, guess, identity, label, number, whole

Files = dict[str, "str | bytes | pl.DataFrame"]


def source(folder: Path, files: Files, path: str = "log", **options: object) -> Source:
    for name, content in files.items():
        file = folder / "log" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(file)
        else:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
    lenient = bool(options.pop("lenient", False))
    return Source(folder / path, Form(**options), lenient=lenient)  # type: ignore[arg-type]


def ids(table: Source, *columns: str) -> list[tuple]:
    """The rows of some columns of ids, checked."""
    read = {column: identity(table, column) for column in columns}
    table.check()
    return table.rows().select(**read).collect().rows()


# ---------------------------------------------------------------- which files


def test_partitions_nested_folders_and_hidden_files(tmp_path: Path) -> None:
    table = source(tmp_path, {
        "dt=2024-01-02/hour=3/part-0.csv": "u,i\nc,3\n",
        "dt=2024-01-01/hour=5/part-1.csv": "u,i\nb,2\n",
        "dt=2024-01-01/hour=5/part-0.csv": "u,i\na,1\n",
        "dt=__HIVE_DEFAULT_PARTITION__/hour=a%20b/part-0.csv": "u,i\nd,4\n",
        "dt=2024-01-01/._part-0.csv": "not a table", "_SUCCESS": "", "_tmp/part.csv": "x\n1\n",
        "dt=2024-01-03/part-0.csv": "", ".part-0.csv.crc": "x",
    })  # fmt: skip
    rows = table.frame.select("u", "i", "dt", "hour").collect().rows()
    assert rows == [
        ("a", "1", "2024-01-01", "5"),
        ("b", "2", "2024-01-01", "5"),
        ("c", "3", "2024-01-02", "3"),
        ("d", "4", None, "a b"),
    ]


def test_a_pattern_may_name_folders(tmp_path: Path) -> None:
    files: Files = {f"{a}/{b}.csv": f"u\n{a}{b}\n" for a in "xy" for b in "pq"}
    table = source(tmp_path, files | {"notes.csv": "other\n1\n"}, "log/*/p.csv")
    assert ids(table, "u") == [("xp",), ("yp",)]
    assert ids(source(tmp_path, {}, "log/**/q.csv"), "u") == [("xq",), ("yq",)]


def test_unlike_columns_and_drifting_types(tmp_path: Path) -> None:
    """Ids of 64 bits stay exact beside fractions, and what a file lacks is missing."""
    big = -(2**63) + 1
    table = source(tmp_path, {
        "1.parquet": pl.DataFrame({"u": [big, 7], "i": [1, 2], "n": [None, None]}),
        "2.parquet": pl.DataFrame({"i": [3.0, 4.0], "u": ["7", "8"], "n": [0.5, 1.5], "new": [1, 2]}),
        "3.parquet": pl.DataFrame({"u": [9], "i": [5], "n": [2]}, schema_overrides={"i": pl.UInt8}),
    })  # fmt: skip
    assert ids(table, "u", "i") == [
        (str(big), "1"), ("7", "2"), ("7", "3"), ("8", "4"), ("9", "5"),
    ]  # fmt: skip
    assert table.frame.select(number(table, "n")).collect()["n"].to_list() == [
        None,
        None,
        0.5,
        1.5,
        2,
    ]
    assert table.frame.select("new").collect()["new"].to_list() == [None, None, 1, 2, None]


def test_a_column_that_must_be_in_every_file(tmp_path: Path) -> None:
    table = source(tmp_path, {"1.csv": "u,i\na,1\n", "items.csv": "i,price\n1,2\n"})
    with pytest.raises(UserError, match=r"items\.csv: column 'u' is missing"):
        identity(table, "u")


def test_the_file_and_the_line_of_a_bad_value(tmp_path: Path) -> None:
    files: Files = {f"{i}.csv": f"u,n\na,{i}\nb,{i}\n" for i in range(4)}
    table = source(tmp_path, files | {"2.csv": "u,n\na,1\nb,two\n"})
    whole(table, "n")
    with pytest.raises(UserError, match=r"log/2\.csv, column n, line 3: the value is 'two'"):
        table.check()


# ---------------------------------------------------------------- texts


ROWS = [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("u,i\na,1\nb,2\n", {}),
        ("u,i \na,1\nb,2\n", {}),
        (" u , i\na , 1\n b,2 \n", {}),
        ("\ufeffu,i\r\na,1\r\nb,2\r\n", {}),
        ("a,1\nb,2\n", {"columns": ["u", "i"]}),
        ("u,i\na,1\nb,2", {"columns": ["u", "i"]}),  # the header is there after all
        ("u::i\na::1\nb::2\n", {"separator": "::"}),
        ("a::1\r\nb::2\r\n", {"separator": "::", "columns": ["u", "i"]}),
        ("u::i\na::1\nb::2", {"separator": "::", "columns": ["u", "i"]}),
        ("u\x01i\na\x011\nb\x012\n", {"separator": "\\x01"}),
        ('u,i,name\na,1,The "X" Band\nb,2,"Y\n', {"quotes": False}),
        # The separator that the first line has; a named one only where it has it.
        ("u;i\na;1\nb;2\n", {}),
        ("u\ti\na\t1\nb\t2\n", {}),
        ("u,i\na,1\nb,2\n", {"separator": "::"}),
        ("a;1\nb;2\n", {"separator": "::", "columns": ["u", "i"]}),
    ],
)
def test_texts(tmp_path: Path, content: str, options: dict) -> None:
    assert ids(source(tmp_path, {"log.csv": content}, **options), "u", "i") == ROWS
    zipped = gzip.compress(content.encode())
    (tmp_path / "log" / "log.csv").unlink()
    assert ids(source(tmp_path, {"log.csv.gz": zipped}, **options), "u", "i") == ROWS


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("a,1,5\n", {"columns": ["u", "i"]}, "has 3 columns, and --columns names 2: u, i"),
        ("u::i\na::1\nb::2::3\n", {"separator": "::"}, "line 3 is 'b::2::3'; write a line of 2 fields"),
        ("u,i\na,1\nb,2,3\n", {}, "cannot be read .a line has more fields.*--no-quotes"),
        ("7,1,5\n8,2,6\n", {}, "no column 'u'; its first line, 7, 1, 5, looks like a row.*--columns"),
        ("u,i\n", {}, "has no rows"),
        ("", {}, "does not exist, or is a folder without tables"),
        ("u,i\na,1\n", {"separator": "\\"}, r"the separator \\ is no character; write .t or"),
        ("u,i\na,1\n", {"separator": "\\x"}, r"the separator \\x is no character"),
        ("u,i\na,1\n,2\n", {}, "line 3: the value is missing; write an id"),
        ("u,i\na,1\nNULL,2\n", {}, "line 3: the value is missing; write an id"),
        ("u,i\na,1\n1.2345e+18,2\n", {}, r"line 3: the value is '1\.2345e\+18'; write an id; .* must not be stored as fractions"),
        ("u,i\na,1\n123456789012345056.0,2\n", {}, r"'123456789012345056\.0'; write an id; whole numbers of more than 15 digits"),
        ("u,i\n" + "a,1\n" * 10_000 + "123456789012345056.0,2\n", {}, "line 10002.*must not be stored as fractions"),
        ("u,i,y,y \na,1,0,1\n", {}, "log.csv has two columns 'y'; rename one"),
        ("u::y::i::y\na::1::0::1\n", {"separator": "::"}, "has two columns 'y'; rename one"),
    ],
)  # fmt: skip
def test_refused_texts(tmp_path: Path, content: str, options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        ids(source(tmp_path, {"log.csv": content}, **options), "u", "i")


@pytest.mark.parametrize("separator", [",", "::"])
@pytest.mark.parametrize(
    ("rows", "header"),
    [
        (["uid,iid", "a,1", "b,2"], True),
        (["U,Item", "a,x", "b,y"], True),  # but for a capital as given
        (["uid,iid", "a,x", "b,2"], False),  # which may be ids as well
        (["u,5", "a,1", "b,2"], False),
        (["uid,", "a,1", "b,2"], False),
        (["uid,iid"], False),
    ],
)
def test_a_header_of_other_words_is_no_row(
    tmp_path: Path, rows: list[str], header: bool, separator: str
) -> None:
    content = "\n".join(rows).replace(",", separator)
    with pytest.raises(UserError) if header else contextlib.nullcontext() as error:
        table = source(tmp_path, {"log.csv": content}, columns=["u", "i"], separator=separator)
    if header:
        said = f"has a header, {rows[0].replace(',', ', ')}, and --columns is for files without one"
        assert said in str(error.value)
    else:
        found = table.frame.select(pl.col("u", "i").fill_null("")).collect().rows()
        assert found == [tuple(row.split(",")) for row in rows]


def test_lines_in_latin_1(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_bytes("1::Misérables, Les::Drama\n".encode("latin-1"))
    form = Form("::", columns=("id", "title", "genres"), encoding="latin-1")
    table = Source(tmp_path / "movies.dat", form)
    assert table.frame.select("title").collect().item() == "Misérables, Les"


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_one_id_however_it_is_written(tmp_path: Path, kind: str) -> None:
    values = ["1", "1.0", " 1", "1.0 ", "007", "v1.0", "x", "-9223372036854775808", "1.5"]
    frame = pl.DataFrame({"u": values})
    content = frame if kind == "parquet" else frame.write_csv()
    found = [u for (u,) in ids(source(tmp_path, {f"log.{kind}": content}), "u")]
    assert found == ["1", "1", "1", "1", "007", "v1.0", "x", "-9223372036854775808", "1.5"]


def test_lists_are_no_ids(tmp_path: Path) -> None:
    table = source(tmp_path, {"log.parquet": pl.DataFrame({"u": [[7], [8, 9]]})})
    with pytest.raises(
        UserError, match=r"column u is List.Int64., which holds no ids; .*--events-in-row"
    ):
        identity(table, "u")


def test_fractions_that_lost_digits_are_no_ids(tmp_path: Path) -> None:
    table = source(tmp_path, {"log.parquet": pl.DataFrame({"u": [7.0, 9.1e18]})})
    with pytest.raises(
        UserError, match=r"row 1 .*the value is 9\.1e\+18; write an id; whole numbers of"
    ):
        ids(table, "u")


def test_bad_rows_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = "u,i,n\na,1,1\n,2,2\nc,3,three\n,4,four\nd,5,5\n"
    table = source(tmp_path, {"log.csv": content}, lenient=True)
    whole(table, "n")
    assert ids(table, "u", "i") == [("a", "1"), ("d", "5")]
    out = capsys.readouterr().out
    assert "2 rows are left out: column u is not an id" in out
    assert "2 rows are left out: column n is not a whole number" in out


def test_blank_rows_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ids(source(tmp_path, {"log.csv": "u,i,n\na,1,1\n,,2\n,,\n"}), "u", "i") == [("a", "1")]
    assert "2 rows are left out: blank in each column" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "exact"), [(pl.Float32, 2**24), (pl.Float64, 2**53)])
def test_fractions_that_no_longer_tell_ids_apart(tmp_path: Path, kind: type, exact: int) -> None:
    frame = pl.DataFrame({"u": [1, exact - 1, exact + 1]}, schema={"u": kind})
    table = source(tmp_path, {"log.parquet": frame[:2]})
    assert ids(table, "u") == [("1",), (str(exact - 1),)]
    with pytest.raises(UserError, match=r"row 2 .*write an id; whole numbers of more than"):
        ids(source(tmp_path, {"log.parquet": frame}), "u")


def test_blanks_around_values(tmp_path: Path) -> None:
    table = source(tmp_path, {"log.csv": "u, n, t, y\na, 5, 1600000000, 1\nb, , 1600000001, 0\n"})
    read = {
        "n": feature(table, "n", "numeric"),
        "t": table.read("t", *times([table], "t")[:2]),
        "y": label(table, "y"),
    }
    ids(table, "u")
    assert table.rows().select(**read).collect().rows() == [
        (5, 1_600_000_000, 1),
        (None, 1_600_000_001, 0),
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_missing_values_of_features(tmp_path: Path, kind: str) -> None:
    written = ["NULL", "null", "\\N", "NaN", "nan", "None", "<NA>", "", None, "1", "x"]
    numbers = [*written[:-1], "?", "NA"]
    frame = pl.DataFrame({"c": [*written, "?"], "n": numbers, "u": "a"})
    table = source(tmp_path, {f"log.{kind}": frame if kind == "parquet" else frame.write_csv()})
    read = {
        name: feature(table, name, k) for name, k in {"c": "categorical", "n": "numeric"}.items()
    }
    ids(table, "u")
    found = table.rows().select(**read).collect()
    assert found["c"].to_list() == [None] * 9 + ["1", "x", "?"]
    assert found["n"].fill_nan(None).to_list() == [None] * 9 + [1.0, None, None]
    pl.DataFrame({"c": [1.0, float("nan")]}).write_parquet(tmp_path / "nan.parquet")
    nan = Source(tmp_path / "nan.parquet")
    assert nan.frame.select(feature(nan, "c", "categorical")).collect()["c"].to_list() == [
        "1",
        None,
    ]


def test_kinds_of_features(tmp_path: Path) -> None:
    """Whole numbers that became fractions are categories like whole numbers."""
    frame = pl.DataFrame(
        {"a": [829.0, None, 1.0], "b": [1.5, 2, None], "c": ["x", "1", None], "d": [1, 2, 3]}
    )
    for name, content in {
        "log.parquet": frame,
        "log.csv": frame.write_csv(null_value="NULL"),
    }.items():
        table = source(tmp_path / name, {name: content})
        kinds = [guess(table, column) for column in "abcd"]
        assert kinds == ["categorical", "numeric", "categorical", "categorical"], name
