"""Every row of the table in docs/formats.md: what a file can get wrong is read, said or refused as the row says."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import logging
import lzma
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helix_sae.errors import HelixSaeError
from helix_sae.mrna.doubts import coding_region_doubts
from helix_sae.mrna.intervals import read_intervals
from helix_sae.mrna.readers import read_sequences
from helix_sae.mrna.records import build_table

SEQUENCE = "ACATGAAATAACG"  # AUG at 2, UAA ends at 11
FASTA = f">a\n{SEQUENCE}\n>b\nGGCC\n"
Check = Callable[[pd.DataFrame], bool]


@dataclass(frozen=True)
class Case:
    """Files, what is read of them, and what comes of it."""

    files: Mapping[str, str | bytes]
    refused: str = ""
    said: str = ""
    read: Check = field(default=lambda table: len(table) > 0)
    rejected: str = ""
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    gff3: str | None = None
    arrange: Callable[[Path], None] = field(default=lambda folder: None)

    @property
    def outcome(self) -> str:
        return "refused" if self.refused else "said" if self.said else "read"


def ids(*wanted: str) -> Check:
    return lambda table: table["sequence_id"].tolist() == list(wanted)


def column(name: str, *wanted: Any) -> Check:
    return lambda table: table[name].astype(object).where(table[name].notna(), None).tolist() == list(wanted)


def table_of(*values: str, name: str = "functional_x") -> dict[str, str]:
    """A CSV with one property."""
    rows = "".join(f'{SEQUENCE},"{value}"\n' for value in values)
    return {"x.csv": f"sequence,{name}\n{rows}"}


def chunk(*records: object) -> dict[str, str]:
    return {"x.json": json.dumps(list(records))}


def parquet(**columns: Any) -> dict[str, bytes]:
    return {"x.parquet": _parquet(pa.table(columns))}


def repeated(value: str, times: int) -> pa.DictionaryArray:
    """One value that is stored once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), [value])


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _link(folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "x.fa").symlink_to(folder / "elsewhere" / "x.fa")


def gff3(*lines: str, more: str = "") -> dict[str, str]:
    return {"x.fa": FASTA, "x.gff3": "##gff-version 3\n" + "".join(f"{line}\n" for line in lines) + more}


def feature(kind: str, start: int, end: int, phase: str = "0", strand: str = "+", extra: str = "ID=c") -> str:
    return f"a\tx\t{kind}\t{start}\t{end}\t.\t{strand}\t{phase}\t{extra}"


def genbank(
    location: str = "3..11", more: str = "", locus: str = "13 bp", sequence: str = SEQUENCE
) -> dict[str, str]:
    cds = f"     CDS             {location}\n{more}" if location else ""
    origin = (
        f"ORIGIN\n        1 {sequence.lower()}\n//\n" if sequence else "CONTIG      join(X.1:1..13)\n//\n"
    )
    return {
        "x.gb": (
            f"LOCUS       NM_1                     {locus}    mRNA    linear   PRI 01-JAN-2020\n"
            "VERSION     NM_1.2\nFEATURES             Location/Qualifiers\n"
            f"     source          1..13\n{cds}{origin}"
        )
    }


LONG = {"x.csv": f"sequence,cds_start\n{'ACGUACGUAC' * 5},0\nACGU,\n"}
ONE_BASED = {
    "x.csv": "sequence,cds_start,cds_end\n"
    + "".join(f"{'C' * n}ATGAAATAAC,{n + 1},{n + 9}\n" for n in range(1, 5))
}
PHASE = "                     /codon_start="
CASES: dict[tuple[str, str], Case | list[Case]] = {
    ("any", "line ends of Windows or of old Macs"): [
        Case(
            {name: content.replace("\n", end)},
            read=lambda t: len(t) >= 1 and t["sequence"].iloc[0] == "ACAUGAAAUAACG",
        )
        for end in ("\r\n", "\r")
        for name, content in (
            ("x.fa", FASTA),
            ("x.csv", f"sequence_id,sequence\na,{SEQUENCE}\nb,GGCC\n"),
            ("x.gb", genbank()["x.gb"]),
            ("x.json", json.dumps([{"sequence": SEQUENCE}], indent=1)),
        )
    ]
    + [
        Case(
            {k: v.replace("\n", "\r") for k, v in gff3(feature("CDS", 3, 11)).items()},
            gff3="x.gff3",
            read=column("cds_start", 2, None),
        )
    ],
    ("any", "a byte-order mark"): Case({"x.fa": b"\xef\xbb\xbf" + FASTA.encode()}, read=ids("a", "b")),
    ("any", "text that is not UTF-8"): Case(
        {"x.fa": FASTA.encode("utf-16")}, refused="byte 0: not UTF-8 text"
    ),
    ("any", "a compressed file"): [
        Case({f"x.fa.{suffix}": squeeze(FASTA.encode())}, read=ids("a", "b"))
        for suffix, squeeze in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress))
    ],
    ("any", "a compressed file that is cut"): [
        Case({f"x.fa.{suffix}": squeeze(FASTA.encode() * 99)[:-9]}, refused="cannot be read")
        for suffix, squeeze in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress))
    ],
    ("any", "a small file that unpacks to far more than sequences come to"): [
        # Members of a file follow one another: 12 times 16 MB of A.
        Case(
            {f"x.fa.{suffix}": squeeze(b">a\n") + 12 * squeeze(b"A" * 2**24)},
            refused=f"x.fa.{suffix}: holds more than 67,108,864 bytes once it is unpacked",
        )
        for suffix, squeeze in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress))
    ],
    ("any", "a pipe or a device"): [
        Case(
            {},
            path="x.fa",
            arrange=lambda d: os.mkfifo(d / "x.fa"),
            refused="pipe, a socket or a device, not a regular file",
        ),
        Case(
            {},
            path="x.fa",
            arrange=lambda d: (d / "x.fa").symlink_to("/dev/zero"),
            refused="not a regular file",
        ),
    ],
    ("any", "a path that does not exist"): Case(
        {}, path="x.fa", refused="there is no such file or folder. Correct the path"
    ),
    ("any", "a suffix that says no format"): Case(
        {"x.dat": FASTA}, refused=r"cannot be told from the name.*fasta \(\.fa"
    ),
    ("any", "an Excel sheet"): Case({"x.xlsx": b"PK"}, refused="save the sheet as CSV"),
    ("any", "an annotation given as the sequences"): [
        Case({name: "x"}, refused="goes with the FASTA file of its transcripts")
        for name in ("x.gff3", "x.gtf.gz")
    ],
    ("any", "DNA letters or lower case"): Case({"x.fa": ">a\nacgtN\n"}, read=column("sequence", "ACGUN")),
    ("any", "T and U in one sequence"): Case(
        {"x.fa": ">a\nACGTACGU\n"}, refused="record 0, sequence: has both T and U"
    ),
    ("any", "letters outside ACGTUN: gaps, IUPAC codes, proteins"): [
        Case({"x.fa": f">a\nACG{letter}\n"}, refused=f"letter '{re.escape(letter)}' at position 3")
        for letter in "-R*M."
    ],
    ("any", "an empty sequence"): Case(
        {"x.fa": ">a\n>b\nAC\n"}, refused="record 0, sequence: is missing or empty"
    ),
    ("any", "an id that another record has"): Case(
        {"x.fa": ">a\nAC\n>a\nGG\n"}, refused="record 1, sequence_id: 'a' is already the id of record 0"
    ),
    ("any", "the id `NA` or `null`"): [
        Case({"x.fa": f">{name}\nAC\n"}, refused=f"'{name}' means 'missing'")
        for name in ("NA", "null", "nan")
    ],
    ("any", "no id"): Case(
        {"x.csv": f"sequence_id,sequence\n,{SEQUENCE}\nb,AC\n"}, read=ids("x_000002", "b")
    ),
    ("any", "a sequence longer than `ingestion.max_tokens`"): Case(
        LONG,
        options={"max_tokens": 60},
        refused=r"50 nt are 68 tokens, and the model reads 60(.|\n)*on_long_sequence",
    ),
    ("any", "the same with `on_long_sequence: cut`"): Case(
        LONG,
        options={"max_tokens": 60, "on_long_sequence": "cut"},
        said="3' ends are cut off",
        # 44 nucleotides, 15 codons (the last one cut) and the closing token.
        read=lambda t: t["sequence"].str.len().tolist() == [44, 4],
    ),
    ("any", "the same with `on_long_sequence: set_aside`"): Case(
        LONG,
        options={"max_tokens": 60, "on_long_sequence": "set_aside"},
        said="set aside in `rejected_records`",
        read=lambda t: t["sequence"].tolist() == ["ACGU"],
        rejected="50 nt are 68 tokens",
    ),
    ("any", "a coding region outside the sequence"): Case(
        {"x.csv": "sequence,cds_start,cds_end\nACATGAAATAACG,2,20\n"}, refused=r"20 is not in \(2, 13\]"
    ),
    ("any", "a coding region that is not of whole codons"): Case(
        {"x.csv": "sequence,cds_start,cds_end\nACATGAAATAACG,2,10\n"}, refused="not a multiple of three"
    ),
    ("any", "a coding region without start or stop codon"): Case(
        {"x.csv": "sequence,cds_start,cds_end\nACCCCAAATCCCG,2,11\n"},
        read=lambda t: len(coding_region_doubts(t)) == 2,
    ),
    ("any", "a missing label: empty, `NA`, `NaN`, `null`"): Case(
        table_of("0", "", "NA", "NaN", "null"), read=column("functional_x", 0.0, None, None, None, None)
    ),
    ("any", "a property of numbers with decimal commas"): Case(
        table_of("1,5", "2,25", "3"),
        refused=r"'x' has 2 of 3 values.*'1,5' \(.*x\.csv, line 2\), is a number with a decimal comma",
    ),
    ("any", "a property of percentages"): Case(table_of("50%", "12.5 %"), refused="is a percentage"),
    ("any", "a property of numbers with separators of thousands"): Case(
        table_of("1,200,300", "12 345"), refused="separators of thousands"
    ),
    ("any", "a property of dates"): [
        Case(table_of(value, value), refused="is a date")
        for value in ("2021-03-04", "4.3.2021", "3/4/21", "1-Mar", "Sep-02")
    ],
    ("any", "one value that is no number in a property of numbers"): Case(
        table_of("1", "2", "3,5"),
        refused=r"line 4, functional_x: '3,5' is not a finite number \(it looks like a number with a decimal comma\)",
    ),
    ("any", "an infinite value"): Case(table_of("1", "inf"), refused="'inf' is not a finite number"),
    ("any", "a property of few texts"): Case(
        table_of("high", "low", "high"), read=column("functional_x", "high", "low", "high")
    ),
    ("any", "a property of texts that all differ"): Case(
        table_of(*(f"t{i}" for i in range(30))), said="x: 30 different texts in 30 records"
    ),
    ("any", "a `/` in the name of a property"): [
        Case(table_of("1", name="functional_a/b"), read=column("functional_a_b", 1.0)),
        Case(table_of("1", name="a/b"), options={"properties": ["a/b"]}, read=column("functional_a_b", 1.0)),
        Case(
            chunk({"sequence": "AC", "annotations": {"functional": {"a/b": 1}}}),
            read=column("functional_a_b", 1.0),
        ),
    ],
    ("any", "two columns that would get one name"): [
        Case(
            {"x.csv": "sequence,functional_a/b,functional_a_b\nAC,1,2\n"},
            refused="would both be 'functional_a_b'",
        ),
        Case(
            {"x.csv": "sequence,te,functional_te\nAC,1,2\n"},
            options={"properties": ["te"]},
            refused="would both be 'functional_te'",
        ),
    ],
    ("any", "columns that nothing maps to"): Case(
        {"x.csv": "sequence,te,note\nAC,1,2\n"}, said="Columns not read.*te, note"
    ),
    ("any", "a column of sequences under another name"): Case(
        {"x.csv": "utr5,te\nACGTACGTAC,1\n"},
        said="taken from column 'utr5'",
        read=column("sequence", "ACGUACGUAC"),
    ),
    ("any", "several columns of nucleotides and none called `sequence`"): Case(
        {"x.csv": "wild,mutant\nACGTACGTAC,ACGTACGTAA\n"},
        refused="Several hold nucleotides: 'wild', 'mutant'",
    ),
    ("table or JSON", "a coding region counted from 1"): [
        Case(ONE_BASED, refused="ingestion.counted_from: 1"),
        Case(
            {"x.csv": ONE_BASED["x.csv"].replace("cds_end", "end")},
            refused="4 of 4 coding regions have their AUG one nucleotide before",
        ),
    ],
    ("table or JSON", "the same with `counted_from: 1`"): Case(
        ONE_BASED, options={"counted_from": 1}, read=column("cds_end", 10, 11, 12, 13)
    ),
    ("folder", "files of other names and folders below"): [
        Case(
            {
                "mRNA_dataset_chunk_0000.json": json.dumps([{"sequence": "AC"}]),
                "other.json": "[]",
                "deeper/x.json": "[]",
                "dataset_metadata.json": "{}",
            },
            path=".",
            said="2 of 3 entries of this folder are not read: deeper/, other.json",
        ),
        Case(
            {"x.fa": FASTA, "notes.txt": "", ".hidden": ""},
            path=".",
            said="1 of 2 entries of this folder are not read: notes.txt",
        ),
        Case({"x.fa": FASTA}, path=".", arrange=lambda d: os.mkfifo(d / "y.fa"), said="not read: y.fa"),
    ],
    ("folder", "links to files"): Case(
        {"elsewhere/x.fa": FASTA}, path="in", arrange=_link, read=ids("a", "b")
    ),
    ("folder", "files of one format"): Case(
        {"2.fa": ">b\nAC\n", "1.fasta.gz": gzip.compress(b">a\nAC\n")}, path=".", read=ids("a", "b")
    ),
    ("folder", "files of several formats"): Case(
        {"x.fa": FASTA, "x.csv": "a\n"}, path=".", refused=r"several formats \(fasta, csv\)"
    ),
    ("folder", "no file of a format"): Case(
        {"x.txt": ""}, path=".", refused="no file of this folder is named as expected"
    ),
    ("JSON", "a key twice in one object"): [
        Case(
            {"x.json": '[{"sequence": "AC", "annotations": {"functional": {"mrl": 1, "mrl": 2}}}]'},
            refused="names the key 'mrl' twice",
        ),
        Case(
            {"x.json": '[{"sequence": "AC", "sequence": "GG"}]'},
            refused="record 0, record: names the key 'sequence' twice",
        ),
    ],
    ("JSON", "two values that flatten to one name"): [
        Case(
            chunk({"sequence": "AC", "annotations": {"functional": {"a": {"b": 1}, "a_b": 2}}}),
            refused="functional_a_b: is given twice, as 1 and as 2",
        ),
        Case(
            chunk({"sequence": "AC", "annotations": {"regulatory": {"codon_usage": {"ATG": 1, "AUG": 2}}}}),
            refused="is given twice",
        ),
        Case(
            chunk({"sequence": "AC", "source": "a", "metadata": {"source": "b"}}),
            refused="source: is given twice",
        ),
    ],
    ("JSON", "something else than a list of records"): [
        Case({"x.json": content}, refused="holds no list of records")
        for content in ("{}", "3", '{"a": 1, "a": 2}')
    ],
    ("JSON", "an entry that is no object"): Case(
        chunk({"sequence": "AC"}, 7), refused="record 1, record: is int, not an object"
    ),
    ("JSON", "a list as a value"): Case(
        chunk({"sequence": "AC", "annotations": {"functional": {"x": [1]}}}),
        refused="functional_x: is a list",
    ),
    ("JSON", "`NaN`"): Case(
        {"x.json": '[{"sequence": "AC", "annotations": {"functional": {"mrl": NaN}}}]'},
        read=column("functional_mrl", None),
    ),
    ("JSON", "a file that is cut"): Case(
        {"x.json": '[{"sequence": "AC"},\n{"seq'}, refused="line 2, column 2: not valid JSON"
    ),
    ("JSON", "a record a line (JSON Lines)"): [
        Case({"x.jsonl": '{"sequence": "AC"}\n'}, refused="one JSON list"),
        Case(
            {"x.json": '{"sequence": "AC"}\n{"sequence": "GG"}\n'}, refused="line 2, column 1: not valid JSON"
        ),
    ],
    ("CSV, TSV", "no header"): [
        Case({"x.csv": ""}, refused="no header"),
        Case({"x.tsv": "\t\n"}, refused="no header"),
    ],
    ("CSV, TSV", "a column named twice"): Case(
        {"x.csv": "sequence,a,a\nAC,1,2\n"}, refused=r"more than once: \['a'\]"
    ),
    ("CSV, TSV", "fields separated by semicolons"): [
        Case({f"x.{suffix}": "sequence;mrl\nAC;1\n"}, refused="look separated by semicolons")
        for suffix in ("csv", "tsv")
    ],
    ("CSV, TSV", "tabs in a file named .csv"): Case(
        {"x.csv": "sequence\tmrl\nAC\t1\n"}, refused=r"name the file \.tsv"
    ),
    ("CSV, TSV", "a row with more or fewer fields"): Case(
        {"x.csv": "sequence,mrl\nAC\n"}, refused="line 2, record: 1 fields where the header has 2"
    ),
    ("CSV, TSV", "quoted commas and line breaks"): Case(
        {"x.csv": 'sequence,metadata_n\nAC,"a, b\nc"\n'}, read=column("metadata_n", "a, b\nc")
    ),
    ("CSV, TSV", "a quotation mark that is not closed"): Case(
        {"x.csv": 'sequence,n\nAC,"a\n'}, refused="not a well-formed table"
    ),
    ("CSV, TSV", "blank lines"): Case({"x.csv": "sequence\n\nAC\n\n"}, read=ids("x_000003")),
    ("Parquet", "lists or objects in a property"): [
        Case(parquet(sequence=["AC", "GG"], functional_x=[[1.0], [2.0]]), refused="is a list"),
        Case(parquet(sequence=["AC", "GG"], functional_x=[{"a": 1}, {"a": 2}]), refused="is an object"),
    ],
    ("Parquet", "dates in a property"): Case(
        parquet(sequence=["AC"], functional_x=[datetime.date(2021, 3, 4)]), refused="is a date"
    ),
    ("Parquet", "bytes in place of text"): Case(
        parquet(sequence=[b"AC"]), refused="sequence: is bytes, not text"
    ),
    ("Parquet", "a column named twice"): Case(
        {
            "x.parquet": _parquet(
                pa.Table.from_arrays(
                    [pa.array(["AC"]), pa.array([1]), pa.array([2])], names=["sequence", "a", "a"]
                )
            )
        },
        refused=r"more than once: \['a'\]",
    ),
    ("Parquet", "a file that is cut"): [
        Case({"x.parquet": parquet(sequence=["AC"])["x.parquet"][:-20]}, refused="not a Parquet file"),
        # What the fuzzer found: a footer that Arrow takes for an error of the disk.
        Case({"x.parquet": bytes(72) + b"PAR1"}, refused="not a Parquet file"),
    ],
    ("Parquet", "a small file that states or holds far more than sequences come to"): [
        # One value of 1,000 nucleotides that stands in 100,000 rows.
        Case(parquet(sequence=repeated("A" * 1000, 100_000)), refused="holds more than 67,108,864 bytes"),
        Case(parquet(sequence=["AC"] * 10**6), refused="holds more than 67,108,864 bytes"),
    ],
    ("FASTA", "text before the first `>`"): Case(
        {"x.fa": "notes\n" + FASTA}, refused="does not start with '>'"
    ),
    ("FASTA", "FASTQ"): [
        Case({"x.fa": "@r\nACGT\n+\nIIII\n"}, refused="looks like FASTQ"),
        Case({"x.fastq": "@r"}, refused="reads of a sequencer"),
    ],
    ("FASTA", "an empty title"): Case(
        {"x.fa": ">\nAC\n>b\nGG\n"}, refused="record 0, sequence_id: the title after '>' is empty"
    ),
    ("FASTA", "further words in a title"): Case({"x.fa": ">a gene=b c\nAC\n"}, read=ids("a")),
    ("GFF3", "GTF by name or by content"): [
        Case(
            {"x.fa": FASTA, "x.gtf": feature("CDS", 3, 8) + "\n"},
            gff3="x.gtf",
            refused="this is GTF, whose CDS leaves out the stop codon",
        ),
        Case(
            gff3(feature("CDS", 3, 8, extra='gene_id "g"; transcript_id "a";')),
            gff3="x.gff3",
            refused="line 2: this is GTF",
        ),
    ],
    ("GFF3", "a first CDS of phase 1 or 2"): [
        Case(
            gff3(feature("CDS", 1, 9, phase)),
            gff3="x.gff3",
            refused=f"record 0, cds_start: a: its first CDS has phase {phase}",
        )
        for phase in "12"
    ],
    ("GFF3", "phases that do not follow from each other"): Case(
        gff3(feature("CDS", 3, 6), feature("CDS", 7, 11, "0")),
        gff3="x.gff3",
        refused="starts at 7 has phase 0 where 2 follows",
    ),
    ("GFF3", "a CDS marked as cut at its 5' end"): [
        Case(gff3(feature("CDS", 1, 9, extra=extra)), gff3="x.gff3", refused="cut at the 5' end")
        for extra in ("ID=c;start_range=.,1", "ID=c;tag=cds_start_NF")
    ],
    ("GFF3", "a CDS marked as cut at its 3' end"): Case(
        gff3(feature("CDS", 3, 13, extra="ID=c;end_range=13,.")),
        gff3="x.gff3",
        read=lambda t: t["cds_start"].iloc[0] == 2 and t["cds_end"].isna().all(),
    ),
    ("GFF3", "coordinates of a genome: reverse strand, introns"): [
        Case(gff3(feature("CDS", 3, 11, strand="-")), gff3="x.gff3", refused="reverse strand"),
        Case(gff3(feature("CDS", 1, 3), feature("CDS", 8, 10)), gff3="x.gff3", refused="not adjacent"),
    ],
    ("GFF3", "a UTR that is not beside the CDS"): Case(
        gff3(feature("UTR5", 1, 1, "."), feature("CDS", 3, 11)),
        gff3="x.gff3",
        refused=r"the UTR \[0, 1\) is not beside",
    ),
    ("GFF3", "UTRs without a CDS"): Case(
        gff3(feature("five_prime_UTR", 1, 2, "."), feature("three_prime_UTR", 12, 13, ".")),
        gff3="x.gff3",
        read=column("cds_end", 11, None),
    ),
    ("GFF3", "names in percent notation"): Case(
        {"x.fa": f">a;1\n{SEQUENCE}\n", "x.gff3": feature("CDS", 3, 11).replace("a\t", "a%3B1\t") + "\n"},
        gff3="x.gff3",
        read=column("cds_start", 2),
    ),
    ("GFF3", "sequences of which the FASTA file holds none"): Case(
        gff3(feature("CDS", 3, 11).replace("a\t", "chr1\t")),
        gff3="x.gff3",
        refused=r"1 of 1 annotated sequences are not in .*'chr1'",
    ),
    ("GFF3", "sequences of which the FASTA file holds some, a selection of transcripts"): Case(
        gff3(feature("CDS", 3, 11), feature("CDS", 3, 11).replace("a\t", "chr1\t")),
        gff3="x.gff3",
        said=r"1 of 2 annotated sequences are not in .*'chr1'",
    ),
    ("GFF3", "sequences without a coding region"): Case(
        gff3(feature("CDS", 3, 11)), gff3="x.gff3", said="no coding region of 1 of 2 sequences"
    ),
    ("GFF3", "no coding region at all"): Case(
        gff3(feature("exon", 1, 13)), gff3="x.gff3", refused="no coding region can be read"
    ),
    ("GenBank", "a record cut inside ORIGIN"): [
        Case(genbank(sequence=SEQUENCE[:8]), refused="LOCUS states 13 nt, and the record holds 8"),
        Case({"x.gb": genbank()["x.gb"][:-12]}, refused="LOCUS states 13 nt"),
    ],
    ("GenBank", "a LOCUS line without a length"): Case(
        genbank(locus="     "), refused="Did not recognise the LOCUS line"
    ),
    ("GenBank", "`/codon_start` 2 or 3"): [
        Case(genbank("2..10", f"{PHASE}{frame}\n"), refused=f"record 0, CDS: has codon_start={frame}")
        for frame in "23"
    ],
    ("GenBank", "a CDS that starts before the record (`<1..`)"): Case(
        genbank("<1..9"), refused="starts before the record"
    ),
    ("GenBank", "a CDS that ends after the record (`..>15`)"): Case(
        genbank("3..>13"), read=lambda t: t["cds_start"].tolist() == [2] and t["cds_end"].isna().all()
    ),
    ("GenBank", "a CDS in pieces or on the reverse strand"): [
        Case(genbank("join(3..5,8..13)"), refused="2 pieces"),
        Case(genbank("complement(3..11)"), refused="reverse strand"),
    ],
    ("GenBank", "more than one CDS"): Case(
        genbank(more="     CDS             1..3\n"), refused="2 coding regions"
    ),
    ("GenBank", "no CDS"): Case(
        genbank(""), said="1 of 1 records have no CDS", read=lambda t: t["cds_start"].isna().all()
    ),
    ("GenBank", "a record without its sequence"): Case(genbank(sequence=""), refused="sequence"),
    ("BED", "a line with fewer than four fields"): Case(
        {"x.bed": "a\t1\t2\n"}, refused="3 fields where an interval has 4"
    ),
    ("BED", "an interval on the reverse strand"): Case(
        {"x.bed": "a\t1\t2\tx\t0\t-\n"}, refused="reverse strand"
    ),
    ("BED", "a range that is none"): Case({"x.bed": "a\t5\t2\tx\n"}, refused="no range of positions"),
}


def rows_of_the_table(project: Path) -> dict[tuple[str, str], str]:
    """What can go wrong -> what happens, as the documentation has it."""
    lines = (project / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {(form, trouble): happens for form, trouble, happens in cells[1:]}


def test_the_table_and_these_tests_have_the_same_rows(project_path: Path) -> None:
    rows = rows_of_the_table(project_path)
    assert list(rows) == list(CASES)
    for key, happens in rows.items():
        cases = CASES[key] if isinstance(CASES[key], list) else [CASES[key]]
        assert {case.outcome for case in cases} == {happens.split(":")[0].split()[0]}, key


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id="-".join(key) + f"-{number}")
        for key, cases in CASES.items()
        for number, case in enumerate(cases if isinstance(cases, list) else [cases])
    ],
)
def test_row(case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "f"
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    folder.mkdir(exist_ok=True)
    case.arrange(folder)
    path = folder / (case.path or next(iter(case.files)))

    def read() -> tuple[pd.DataFrame, pd.DataFrame]:
        if path.suffix == ".bed":
            return read_intervals(str(path)), pd.DataFrame()
        annotation = None if case.gff3 is None else str(folder / case.gff3)
        return build_table(read_sequences(str(path), gff3=annotation), cluster_by="none", **case.options)

    with caplog.at_level(logging.INFO):
        if case.refused:
            with pytest.raises(HelixSaeError, match=case.refused):
                read()
            return
        table, rejected = read()
    assert case.read(table)
    if case.said:
        assert re.search(case.said, caplog.text), caplog.text
    if case.rejected:
        assert case.rejected in rejected["reason"].iloc[0]
