"""BED-like files of intervals."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.errors import DataError, HelixSaeError
from helix_sae.mrna.annotations import annotate_table
from helix_sae.mrna.intervals import interval_table, parse_intervals, read_intervals

BED = "#comment\ntrack name=x\nbrowser position a\n\na\t2\t5\tm6A\t0\t+\nb\t0\t1\tclip\n"


def parse(content: str) -> pd.DataFrame:
    return parse_intervals(io.BytesIO(content.encode()), "sites.bed")


def test_bed_plain_and_compressed(tmp_path: Path) -> None:
    expected = interval_table([("a", 2, 5, "m6A"), ("b", 0, 1, "clip")])
    pd.testing.assert_frame_equal(parse(BED), expected)
    (tmp_path / "sites.bed.gz").write_bytes(gzip.compress(BED.encode()))
    pd.testing.assert_frame_equal(read_intervals(str(tmp_path / "sites.bed.gz")), expected)


def test_they_become_concepts() -> None:
    table = pd.DataFrame(
        {
            "sequence_id": ["a", "b"],
            "sequence": ["ACGUACGU", "GGG"],
            "cds_start": pd.array([None, None], dtype="Int64"),
            "cds_end": pd.array([None, None], dtype="Int64"),
        }
    )
    found = annotate_table(table, intervals=parse(BED))
    assert found.column("m6A").nonzero()[0].tolist() == [2, 3, 4]
    assert found.column("clip").nonzero()[0].tolist() == [8]


def test_no_intervals_are_an_empty_table_of_the_same_types() -> None:
    assert interval_table().dtypes.equals(parse(BED).dtypes)
    assert parse("").empty


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a\t1\t2", r"sites\.bed, line 1: 3 fields where an interval has 4"),
        ("a\tx\t2\tn", "line 1: 'x' to '2' is no range"),
        ("a\t5\t5\tn", "line 1: '5' to '5' is no range"),
        ("a\t-1\t5\tn", "line 1: '-1' to '5'"),
        (f"a\t1\t{'9' * 30}\tn", "is no range"),
        ("a\t1\t2\t ", "needs a sequence_id and a name"),
        ("a\t1\t2\tn\t0\t-", "on the reverse strand"),
    ],
)
def test_malformed_lines_are_named(line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(line)


def test_files_that_are_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.bed: there is no such file"):
        read_intervals(str(tmp_path / "absent.bed"))
    (tmp_path / "x.bed.gz").write_bytes(gzip.compress(BED.encode())[:-10])
    with pytest.raises(DataError, match=r"x\.bed\.gz: the file cannot be read"):
        read_intervals(str(tmp_path / "x.bed.gz"))


@given(st.binary(max_size=60) | st.text("ab\t019.-\n#", max_size=60).map(str.encode))
def test_anything_gives_intervals_or_a_named_error(content: bytes) -> None:
    try:
        table = parse_intervals(io.BytesIO(content), "file")
    except HelixSaeError:
        return
    assert (table["start"] < table["end"]).all()
