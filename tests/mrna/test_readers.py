"""Readers: each format, each way a file can be broken, and real files when they are there."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import fsspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_sae.errors import ConfigurationError, DataError, HelixSaeError
from helix_sae.mrna.doubts import NO_START, NO_STOP, STOP_INSIDE, coding_region_doubts
from helix_sae.mrna.readers import (
    read_csv,
    read_fasta,
    read_genbank,
    read_gff3_coding_regions,
    read_json,
    read_sequences,
)
from helix_sae.mrna.records import RawRecords, Reporter, build_table, validate_table


def text(reader: Callable[[IO[bytes], str], RawRecords], content: str | bytes) -> RawRecords:
    return reader(io.BytesIO(content.encode() if isinstance(content, str) else content), "file")


def chunk(folder: Path, number: int, records: list[Any]) -> None:
    (folder / f"mRNA_dataset_chunk_{number:04d}.json").write_text(json.dumps(records))


def test_json_chunks_of_a_folder_in_order(tmp_path: Path) -> None:
    chunk(tmp_path, 1, [{"sequence": "CCCC"}])
    chunk(
        tmp_path, 0, [{"sequence": "AAAA", "annotations": {"functional": {"mrl": 2}}}, {"sequence": "GGGG"}]
    )
    (tmp_path / "dataset_metadata.json").write_text("{}")
    (tmp_path / "notes.json").write_text("not json")
    raw = read_sequences(str(tmp_path))
    assert [r.values["sequence"] for r in raw.records] == ["AAAA", "GGGG", "CCCC"]
    assert [r.place for r in raw.records] == ["record 0", "record 1", "record 0"]
    assert raw.records[2].file == f"{tmp_path}/mRNA_dataset_chunk_0001.json"
    table, _ = build_table(raw)
    assert table["sequence_id"].tolist()[2] == "mRNA_dataset_chunk_0001_000000"
    assert (
        read_sequences(str(tmp_path / "mRNA_dataset_chunk_0001.json")).records[0].values["sequence"] == "CCCC"
    )


def test_json_entries_that_are_no_records_are_named() -> None:
    raw = text(read_json, '[{"sequence": "AC"}, 7, {"sequence": "AC", "annotations": 3}]')
    assert len(raw.records) == 1
    assert [(r.record, r.field) for r in raw.rejected] == [
        ("record 1", "record"),
        ("record 2", "annotations"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"sequence": "ACGT"},\n {"sequence"', "file, line 2, column"),
        ("{}", "holds no list of records but dict"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not JSON that can be read"),
        (b"\xff\xfe[\x00]\x00", "byte 0: not UTF-8"),
        ("[" + "9" * 5_000 + "]", "not JSON that can be read"),
    ],
)
def test_broken_json(content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        text(read_json, content)


def test_fasta() -> None:
    raw = text(read_fasta, "\ufeff>a first one\r\nACGT\r\nacgu\r\n\r\n>b\r\nGG\r\n")
    assert [r.values for r in raw.records] == [
        {"sequence_id": "a", "sequence": "ACGTacgu"},
        {"sequence_id": "b", "sequence": "GG"},
    ]
    raw = text(read_fasta, ">\nAC\n>b\n\n")
    assert raw.rejected[0].field == "sequence_id"
    with pytest.raises(DataError, match="record 1, sequence: is missing"):
        build_table(RawRecords(raw.records, []))
    with pytest.raises(DataError, match="not FASTA"):
        text(read_fasta, "ACGT\n>a\nAC")


def test_csv_with_mark_windows_lines_quotes_and_blank_lines() -> None:
    raw = text(read_csv, '\ufeffutr,note\r\nACGT,"a ""b"", c"\r\n\r\nGG,"two\r\nlines"\r\nCC,x\r\n')
    assert [r.values["utr"] for r in raw.records] == ["ACGT", "GG", "CC"]
    assert raw.records[0].values["note"] == 'a "b", c'
    assert [r.place for r in raw.records] == ["line 2", "line 5", "line 6"]


def test_ragged_rows_are_named() -> None:
    raw = text(read_csv, "sequence,mrl\nAC,1\nAC\nAC,1,2\n")
    assert [(r.record, r.reason) for r in raw.rejected] == [
        ("line 3", "1 fields where the header has 2"),
        ("line 4", "3 fields where the header has 2"),
    ]


def test_a_cell_longer_than_the_csv_module_allows() -> None:
    assert text(read_csv, "sequence\n" + "A" * 300_000 + "\n").records[0].values["sequence"] == "A" * 300_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no header"),
        ("\n", "no header"),
        ("a,b,a\n1,2,3\n", r"more than once: \['a'\]"),
        ('a,b\n"x"y,2\n', "line 2: not a well-formed table"),
        ('a,b\n"x,2\n', "not a well-formed table"),
        (b"a\n\xe9\n", "byte 2: not UTF-8"),
    ],
)
def test_broken_tables(content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        text(read_csv, content)


def test_parquet_tsv_and_compression_agree_with_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame({"sequence": ["ACGT", "GG"], "functional_mrl": [1.5, None], "reads": [3, 4]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_csv(tmp_path / "x.tsv.gz", index=False, sep="\t")
    frame.to_csv(tmp_path / "x.CSV.xz", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    tables = [
        build_table(read_sequences(str(tmp_path / name)))[0].drop(columns="sequence_id")
        for name in ("x.csv", "x.tsv.gz", "x.CSV.xz", "x.parquet")
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_any_url() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/readers/in.fa.gz", gzip.compress(b">a\nACGT\n"))
    assert read_sequences("memory://readers/in.fa.gz").records[0].values == {
        "sequence_id": "a",
        "sequence": "ACGT",
    }
    assert read_sequences("memory://readers", "fasta").records[0].file == "memory://readers/in.fa.gz"


def test_files_that_are_not_there_or_empty_or_of_no_known_format(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_sequences(str(tmp_path / "absent.csv"))
    with pytest.raises(DataError, match="no file of this folder is named"):
        read_sequences(str(tmp_path))
    (tmp_path / "x.dat").touch()
    with pytest.raises(ConfigurationError, match="cannot be told from the name"):
        read_sequences(str(tmp_path / "x.dat"))
    for name in ("x.csv", "x.fa", "x.gb", "x.json", "x.parquet"):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=name):
            read_sequences(str(tmp_path / name))
    (tmp_path / "y.csv").write_text("sequence\n")
    with pytest.raises(DataError, match="holds no record"):
        read_sequences(str(tmp_path / "y.csv"))
    (tmp_path / "z.csv.gz").write_bytes(gzip.compress(b"sequence\nACGT\n" * 100)[:-12])
    with pytest.raises(DataError, match=r"z\.csv\.gz: the file cannot be read"):
        read_sequences(str(tmp_path / "z.csv.gz"))


GFF = "##gff-version 3\na\tx\tCDS\t3\t8\t.\t+\t0\tID=c\na\tx\tCDS\t9\t11\t.\t+\t0\tID=c\nb\tx\tUTR5\t1\t2\t.\t+\t.\t.\n"


def test_fasta_with_coding_regions(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_text(">a\nACATGAAAAAATAAC\n>b\nACGT\n")
    (tmp_path / "x.gff3").write_text(GFF)
    table, _ = build_table(read_sequences(str(tmp_path / "x.fa"), gff3=str(tmp_path / "x.gff3")))
    assert table["cds_start"].tolist() == [2, pd.NA]
    assert table["cds_end"].tolist() == [11, pd.NA]
    (tmp_path / "x.gff3").write_text(GFF.replace("a\t", "absent\t"))
    with pytest.raises(DataError, match=r"1 of 1 annotated sequences are not in .*x\.fa.*'absent'"):
        read_sequences(str(tmp_path / "x.fa"), gff3=str(tmp_path / "x.gff3"))
    with pytest.raises(ConfigurationError, match="gff3 goes with FASTA"):
        read_sequences(str(tmp_path / "x.csv"), "csv", gff3="x") if (tmp_path / "x.csv").write_text(
            "a\n"
        ) else None


def gff3(*features: tuple[str, str, int, int]) -> bytes:
    return "".join(f"{a}\tx\t{kind}\t{b}\t{c}\t.\t+\t.\t.\n" for a, kind, b, c in features).encode()


def test_gff3_with_utrs() -> None:
    """UTRs alone say where the coding region lies; names are in percent notation; other features say nothing."""
    content = gff3(
        *[("a", "UTR5", 1, 4), ("a", "CDS", 5, 10), ("a", "UTR3", 11, 12)],
        *[
            ("b%3B1", "five_prime_UTR", 1, 2),
            ("b%3B1", "five_prime_UTR", 3, 6),
            ("b%3B1", "three_prime_UTR", 10, 12),
        ],
        *[("c", "UTR5", 1, 4), ("d", "exon", 1, 9)],
    )
    found = read_gff3_coding_regions(io.BytesIO(content), "file")
    assert found.regions == {"a": (4, 10), "b;1": (6, 9)}
    assert not found.refused


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            [("a", "UTR5", 1, 3), ("a", "CDS", 5, 10)],
            r"sequence a: the UTR \[0, 3\) is not beside the coding region",
        ),
        ([("a", "CDS", 5, 10), ("a", "UTR3", 10, 12)], r"sequence a: the UTR \[9, 12\) is not beside"),
        ([("a", "UTR3", 5, 10), ("a", "UTR3", 12, 14)], "sequence a: its UTR features are not adjacent"),
        ([("a", "CDS", 1, 10**20)], "no range of positions"),
    ],
)
def test_gff3_features_that_do_not_fit(features: list[tuple[str, str, int, int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_gff3_coding_regions(io.BytesIO(gff3(*features)), "file")


def test_a_gff3_number_of_thousands_of_digits() -> None:
    content = b"a\tx\tCDS\t1\t" + b"9" * 6_000 + b"\t.\t+\t.\t.\n"
    with pytest.raises(DataError, match=r"line 1: '1' to '9{40}' is no range"):
        read_gff3_coding_regions(io.BytesIO(content), "file")


def test_annotation_that_does_not_fit_the_sequence_is_named(tmp_path: Path) -> None:
    """A coding region out of range, or not of whole codons, is an error that names the record; or is set aside."""
    (tmp_path / "x.fa").write_text(">a\nACATGAAAAAATAAC\n>b\nACATGAAAAAATAAC\n")
    for end, reason in (
        (30, r"cds_end: 30 is not in \(2, 15\]"),
        (12, r"\[2, 12\) is not a multiple of three"),
    ):
        (tmp_path / "x.gff3").write_bytes(gff3(("b", "CDS", 3, end)))
        raw = read_sequences(str(tmp_path / "x.fa"), gff3=str(tmp_path / "x.gff3"))
        with pytest.raises(DataError, match=r"x\.fa.*record 1.*" + reason):
            build_table(raw)
        table, rejected = build_table(raw, on_bad_record="set_aside")
        assert table["sequence_id"].tolist() == ["a"]
        assert rejected["field"].tolist() == ["cds_end"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("\t+\t", "\t-\t"), "line 2: a CDS on the reverse strand"),
        (("\t9\t11\t", "\t10\t12\t"), "sequence a: its coding features are not adjacent"),
        (("\t3\t8\t", "\t0\t8\t"), "line 2: '0' to '8'"),
        (("\t3\t8\t", "\tx\t8\t"), "line 2: 'x' to '8'"),
        (("\t0\tID=c", "\t0"), "line 2: 8 fields"),
    ],
)
def test_broken_gff3(change: tuple[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_gff3_coding_regions(io.BytesIO(GFF.replace(*change).encode()), "file")


def genbank(location: str = "3..11", features: str = "") -> str:
    return (
        "LOCUS       NM_1                      15 bp    mRNA    linear   PRI 01-JAN-2020\n"
        "VERSION     NM_1.2\nFEATURES             Location/Qualifiers\n"
        '     gene            1..15\n                     /gene="ABC"\n'
        f"     CDS             {location}\n{features}"
        "ORIGIN\n        1 acatgaaaaa ataac\n//\n"
    )


def test_genbank() -> None:
    raw = text(read_genbank, genbank() + genbank("3..>15").replace("NM_1.2", "NM_2.1"))
    assert [r.values for r in raw.records] == [
        {
            "sequence_id": "NM_1.2",
            "sequence": "ACATGAAAAAATAAC",
            "metadata_gene_id": "ABC",
            "cds_start": 2,
            "cds_end": 11,
        },
        {
            "sequence_id": "NM_2.1",
            "sequence": "ACATGAAAAAATAAC",
            "metadata_gene_id": "ABC",
            "cds_start": 2,
            "cds_end": None,
        },
    ]
    table, _ = build_table(raw)
    assert table["cluster"].tolist() == ["ABC", "ABC"]


@pytest.mark.parametrize("name", ["x.gb", "x.gbff", "x.gbff.gz", "x.gbk.gz"])
def test_genbank_files(tmp_path: Path, name: str) -> None:
    content = (genbank() + genbank("3..>15").replace("NM_1.2", "NM_2.1")).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    table, rejected = build_table(read_sequences(str(tmp_path / name)))
    assert rejected.empty
    assert table["sequence_id"].tolist() == ["NM_1.2", "NM_2.1"]
    assert table["cds_start"].tolist() == [2, 2]
    assert table["cds_end"].tolist() == [11, pd.NA]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (genbank("complement(3..11)"), "reverse strand"),
        (genbank("join(3..5,7..12)"), "2 pieces"),
        (genbank("<1..11"), "starts before the record"),
        (genbank(features="     CDS             1..3\n"), "2 coding regions"),
    ],
)
def test_genbank_records_without_a_plain_coding_region(entry: str, reason: str) -> None:
    rejected = text(read_genbank, entry).rejected
    assert [r.field for r in rejected] == ["CDS"]
    assert reason in rejected[0].reason


def read_all(suffix: str, content: bytes) -> None:
    """What a user does with a file: it must give a table, or an error of this package."""
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/fuzz/in.{suffix}", content)
    try:
        table, _ = build_table(read_sequences(f"memory://fuzz/in.{suffix}"), on_bad_record="set_aside")
    except HelixSaeError:
        return
    validate_table(table)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["sequence", "annotations", "functional", "mrl", "metadata", "cds_start", "codon_usage", "x"]
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150)
@given(st.lists(json_values, max_size=4) | json_values)
def test_any_json_value(value: Any) -> None:
    read_all("json", json.dumps(value).encode())


@settings(max_examples=150)
@given(st.sampled_from(["json", "fa", "csv", "tsv", "gb"]), st.binary(max_size=200))
def test_any_bytes(suffix: str, content: bytes) -> None:
    read_all(suffix, content)


@settings(max_examples=150)
@given(
    st.sampled_from(["csv", "fa", "json", "tsv"]),
    st.text(alphabet='ACGTU,>"\n\r\t sequnc[]{}:019.\x00\ufeff', max_size=80),
)
def test_any_text_of_the_formats_own_letters(suffix: str, content: str) -> None:
    read_all(suffix, content.encode())


@settings(max_examples=60)
@given(
    st.sampled_from(["fa", "csv", "gb", "json"]), st.integers(0, 10_000), st.binary(min_size=1, max_size=3)
)
def test_any_damage_to_a_good_file(suffix: str, position: int, damage: bytes) -> None:
    good = {
        "fa": b">a one\nACGTACGT\n>b\nGGCC\n",
        "csv": b"sequence_id,sequence,cds_start,cds_end\na,ACATGAAATAAC,2,11\nb,GG,,\n",
        "gb": genbank().encode(),
        "json": b'[{"sequence": "ACGT", "annotations": {"functional": {"mrl": 3.5}}, "metadata": {"source": "x"}}]',
    }[suffix]
    position %= len(good)
    read_all(suffix, good[:position] + damage + good[position + len(damage) :])
    read_all(suffix, good[:position])


cells = st.sampled_from(
    [
        "",
        "ACGU",
        "acgt",
        "ACGN",
        "AXC",
        "NA",
        "nan",
        "inf",
        "-1",
        "1e400",
        "2",
        "3.5",
        "5",
        '"',
        "\u00e9",
        "1_0",
        "True",
    ]
) | st.text(max_size=4)
headers = st.sampled_from(
    [
        "sequence",
        "sequence_id",
        "cds_start",
        "cds_end",
        "source",
        "cluster",
        "mother",
        "reads",
        "functional_mrl",
        "x",
    ]
)


@settings(max_examples=120)
@given(
    st.lists(headers, min_size=1, max_size=5),
    st.lists(st.lists(cells, max_size=5), max_size=4),
    st.sampled_from("\t,;"),
)
def test_any_table_of_plausible_cells(names: list[str], rows: list[list[str]], delimiter: str) -> None:
    content = "\n".join(delimiter.join(row) for row in [names, *rows]).encode("utf-8", errors="surrogatepass")
    for suffix in ("csv", "tsv"):
        read_all(suffix, content)


@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries({"sequence": cells, "functional_x": json_values, "cds_start": json_values}),
        max_size=3,
    )
)
def test_any_records_through_parquet(rows: list[dict[str, Any]]) -> None:
    try:
        frame = pd.DataFrame(rows, columns=["sequence", "functional_x", "cds_start"])
        content = frame.to_parquet()
    except Exception:  # what Arrow cannot store is no file of a user's
        return
    read_all("parquet", content)
    read_all("parquet", content[: len(content) // 2])


@settings(max_examples=100)
@given(st.text(alphabet="ab\tCDSUTR5+-.0189%#\n>x", max_size=80), st.integers(0, 200))
def test_any_gff3(content: str, cut: int) -> None:
    good = gff3(("a", "UTR5", 1, 2), ("a", "CDS", 3, 8), ("a", "UTR3", 9, 10)).decode()
    for text_ in (content, good[:cut] + content, content + good):
        try:
            found = read_gff3_coding_regions(io.BytesIO(text_.encode()), "file")
        except HelixSaeError:
            continue
        assert all(start >= 0 and (end is None or start < end) for start, end in found.regions.values())
        assert not set(found.regions) & set(found.refused)


def test_measured_variants(shared_data: Path) -> None:
    raw = read_sequences(str(shared_data / "snv_5utr_mrl.csv"))
    columns = {"sequence": "utr", "functional_mrl": "mrl"}
    table, rejected = build_table(raw, columns=columns, reporter=Reporter())
    measured = pd.read_csv(shared_data / "snv_5utr_mrl.csv")
    assert rejected.empty
    assert table["functional_mrl"].tolist() == measured["mrl"].tolist()
    assert table["reads"].tolist() == measured["reads"].tolist()
    assert table["cluster"].nunique() == measured["mother"].nunique()
    assert (table["mother"] == table["sequence_id"]).sum() == 867
    variants = table[table["mother"].notna() & (table["mother"] != table["sequence_id"])]
    assert len(variants) == 1_996
    assert set(table["cds_start"]) == {50}
    assert table["sequence"].str[50:].unique().tolist() == ["AUGGGCGAA"]


def test_measured_random_utrs(shared_data: Path) -> None:
    raw = read_sequences(str(shared_data / "random_5utr_mrl.csv"))
    table, rejected = build_table(
        raw, columns={"sequence": "utr", "functional_mrl": "mrl"}, reporter=Reporter(), cluster_by="none"
    )
    assert (len(table), len(rejected)) == (20_000, 0)


def test_yeast_transcripts(shared_data: Path, tmp_path: Path) -> None:
    """Whole transcripts with their regions; gzipped, both files give the same."""
    fasta, gff3 = shared_data / "yeast_transcripts.fa", shared_data / "yeast_transcripts.gff3"
    table, rejected = build_table(read_sequences(str(fasta), gff3=str(gff3)))
    assert (len(table), len(rejected)) == (68, 0)
    assert set(table["cds_start"]) == {250}
    assert set(table["sequence"].str.len() - table["cds_end"]) == {250}
    starts = [s[i : i + 3] for s, i in zip(table["sequence"], table["cds_start"], strict=True)]
    stops = [s[i - 3 : i] for s, i in zip(table["sequence"], table["cds_end"], strict=True)]
    # The annotation of YAL001C, whose gene has an intron, is no reading frame: all others start and stop as they should.
    odd = table["sequence_id"] == "YAL001C"
    assert {c for c, wrong in zip(starts, odd, strict=True) if not wrong} == {"AUG"}
    assert {c for c, wrong in zip(stops, odd, strict=True) if not wrong} == {"UAA", "UAG", "UGA"}
    doubts = coding_region_doubts(table)
    assert set(doubts["sequence_id"]) == {"YAL001C"}
    assert set(doubts["doubt"]) == {NO_START, NO_STOP, STOP_INSIDE}
    for file in (fasta, gff3):
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    zipped = read_sequences(
        str(tmp_path / "yeast_transcripts.fa.gz"), gff3=str(tmp_path / "yeast_transcripts.gff3.gz")
    )
    pd.testing.assert_frame_equal(build_table(zipped)[0], table)


@settings(max_examples=80)
@given(
    st.text(alphabet="ACGU", min_size=12, max_size=60),
    st.integers(0, 8),
    st.integers(1, 12),
    st.integers(0, 2),
    st.sampled_from(["gff3", "genbank"]),
)
def test_what_is_read_is_in_frame_or_refused(
    sequence: str, start: int, codons: int, phase: int, kind: str
) -> None:
    """Codons are marked from where the file says that one begins; never from a nucleotide within one."""
    end = min(start + 3 * codons + phase, len(sequence))
    end -= (end - start - phase) % 3
    if end <= start + phase:
        return
    if kind == "gff3":
        line = f"a\tx\tCDS\t{start + 1}\t{end}\t.\t+\t{phase}\tID=c\n"
        found = read_gff3_coding_regions(io.BytesIO(line.encode()), "file")
        assert found.regions == ({} if phase else {"a": (start, end)})
        assert bool(found.refused) == bool(phase)
        return
    entry = (
        f"LOCUS       NM_1                     {len(sequence)} bp    mRNA    linear   PRI 01-JAN-2020\n"
        "VERSION     NM_1.2\nFEATURES             Location/Qualifiers\n"
        f"     CDS             {start + 1}..{end}\n                     /codon_start={phase + 1}\n"
        f"ORIGIN\n        1 {sequence.lower()}\n//\n"
    )
    read = text(read_genbank, entry)
    assert [(r.values["cds_start"], r.values["cds_end"]) for r in read.records] == (
        [] if phase else [(start, end)]
    )
    assert bool(read.rejected) == bool(phase)
