"""Coverage-guided fuzzing of every reader: whatever the bytes, there are records or an error of this package.

``make fuzz``, or ``python tests/fuzz/fuzz_readers.py --times 10`` for ten times as many inputs. Each reader runs in a process of its own, from good files of
its format and a fixed seed, so that the same code is given the same inputs. One that fails is printed and kept in ``--keep``.
atheris has wheels for Linux alone; elsewhere nothing is fuzzed, and this says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

RUNS = {
    "json": 10_000,
    "fasta": 10_000,
    "csv": 10_000,
    "tsv": 10_000,
    "parquet": 10_000,
    "genbank": 10_000,
    "gff3": 50_000,
    "bed": 50_000,
}
"""Inputs of each reader: what takes some ten seconds. Those that make a table of what was read are slower."""

WORDS = {
    "json": [
        "annotations",
        "functional",
        "mrl",
        "metadata",
        "source",
        "cluster",
        "mother",
        "null",
        "NaN",
        "1e999",
        "codon_usage",
    ],
    "fasta": [">", "ACGU", "NA", "N"],
    "csv": [
        "sequence",
        "cds_start",
        "mother",
        "reads",
        "functional_y",
        "50%",
        "1,5",
        "2021-03-04",
        "inf",
        "NA",
        '"',
    ],
    "tsv": ["\t", "cluster", "source", "metadata_gene_id", "cds_end", "12", "-1", "1_0"],
    "parquet": ["PAR1"],
    "genbank": [
        "CDS",
        "join(",
        "complement(",
        "<1",
        ">13",
        "..",
        "/codon_start=2",
        "/gene=",
        "ORIGIN",
        "//",
        "LOCUS",
        " bp",
    ],
    "gff3": [
        "CDS",
        "UTR3",
        "five_prime_UTR",
        "\t0\t",
        "\t1\t",
        "\t2\t",
        "\t-\t",
        "cds_end_NF",
        "%3B",
        "##FASTA",
    ],
    "bed": ["\t", "track ", "-", "+", "0", "9"],
}
"""Words that the fuzzer puts in."""
_LONGEST = 2_048  # bytes of an input
_SLOWEST = 20  # seconds for one input, on a busy machine


def good_files(reader: str) -> list[bytes]:
    """Where the fuzzer begins: small files of the format, with what the reader distinguishes."""
    sequence = "ACATGAAATAACG"
    if reader == "parquet":
        import pandas as pd

        frame = pd.DataFrame(
            {"sequence": [sequence, "GG"], "cds_start": [2, None], "functional_x": ["1,5", "2"]}
        )
        return [frame.to_parquet(), frame.iloc[:1].to_parquet(compression=None)]
    texts = {
        "json": [
            f'[{{"sequence": "{sequence}", "annotations": {{"functional": {{"mrl": 3.5, "te": null}}, "regulatory": '
            '{"codon_usage": {"ATG": 1}}}, "metadata": {"source": "x", "cds_start": 2, "gene_id": "g"}}, 7]',
            '[{"sequence": "AC", "a": 1, "a": 2}]',
        ],
        "fasta": [f">a one\n{sequence}\nGG\n>b\r\nacgu\r\n"],
        "csv": [
            f'sequence_id,sequence,cds_start,cds_end,functional_x,note\na,{sequence},2,11,"1,5","x ""y"""\nb,GG,,,NA,\n'
        ],
        "tsv": [f"sequence\tmother\treads\n{sequence}\tAC\t3\nGG\t\t\n"],
        "genbank": [
            "LOCUS       NM_1                     13 bp    mRNA    linear   PRI 01-JAN-2020\nVERSION     NM_1.2\n"
            'FEATURES             Location/Qualifiers\n     gene            1..13\n                     /gene="ABC"\n'
            f"     CDS             {where}\n                     /codon_start=1\nORIGIN\n        1 {sequence.lower()}\n//\n"
            for where in ("3..11", "join(3..5,6..>11)")
        ],
        "gff3": [
            "##gff-version 3\na\tx\tUTR5\t1\t2\t.\t+\t.\tID=u\na\tx\tCDS\t3\t5\t.\t+\t0\tID=c;start_range=.,3\n"
            "a%3B1\tx\tCDS\t3\t6\t.\t+\t0\tID=c\na%3B1\tx\tCDS\t7\t11\t.\t-\t2\tend_range=11,.\n##FASTA\n",
            'a\tx\tCDS\t3\t5\t.\t+\t0\tgene_id "g";\n',
        ],
        "bed": ["track name=x\n#\na\t0\t2\tclip\t0\t+\nb\t1\t3\tclip\n"],
    }
    return [text.encode() for text in texts[reader]]


def target(reader: str) -> Callable[[bytes], None]:
    """What is done with one input."""
    from helix_sae.errors import HelixSaeError
    from helix_sae.mrna import readers
    from helix_sae.mrna.intervals import parse_intervals
    from helix_sae.mrna.records import build_table, validate_table

    read = {
        "json": readers.read_json,
        "fasta": readers.read_fasta,
        "csv": readers.read_csv,
        "tsv": readers.read_tsv,
        "parquet": readers.read_parquet,
        "genbank": readers.read_genbank,
    }

    def run(data: bytes) -> None:
        stream = io.BytesIO(data)
        try:
            if reader == "bed":
                intervals = parse_intervals(stream, "file")
                assert (intervals["start"] < intervals["end"]).all()
            elif reader == "gff3":
                found = readers.read_gff3_coding_regions(stream, "file")
                assert all(
                    start >= 0 and (end is None or start < end) for start, end in found.regions.values()
                )
            else:
                raw = read[reader](stream, "file")
                table, rejected = build_table(raw, on_bad_record="set_aside", cluster_by="none")
                validate_table(table)
                assert len(table) + rejected["record"].nunique() == len(raw.records) + len(raw.rejected)
        except HelixSaeError:
            return

    return run


def fuzz(reader: str, runs: int, keep: Path) -> None:
    """Fuzz one reader in this process, which ends with it."""
    import atheris
    import pandas  # noqa: F401 - what is imported before is not instrumented
    import pyarrow.parquet  # noqa: F401

    with atheris.instrument_imports(include=["helix_sae.mrna", "Bio.GenBank", "Bio.SeqIO"]):
        run = target(reader)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, content in enumerate(good_files(reader)):
            (corpus / str(number)).write_bytes(content)
        # As libFuzzer's dictionaries have it: bytes that are no plain letter in hexadecimal.
        words = ("".join(f"\\x{byte:02X}" for byte in word.encode()) for word in WORDS[reader])
        dictionary = Path(folder, "words")
        dictionary.write_text("".join(f'"{word}"\n' for word in words), encoding="ascii")
        options = [
            f"-runs={runs}",
            "-seed=1",
            f"-max_len={_LONGEST}",
            f"-timeout={_SLOWEST}",
            "-rss_limit_mb=4096",
        ]
        options += ["-verbosity=0", f"-dict={dictionary}", f"-artifact_prefix={keep}/{reader}-"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], run)
        atheris.Fuzz()


def main() -> int:
    """Fuzz every reader, or the one that is named; 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=float, default=1.0, help="so many times the usual number of inputs")
    parser.add_argument("--reader", choices=list(RUNS), help="only this one, in this process")
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder for inputs that fail"
    )
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (it has wheels for Linux alone): the readers are not fuzzed.")
        return 0
    if given.reader:
        fuzz(given.reader, int(RUNS[given.reader] * given.times), given.keep)
        return 0
    failed: list[str] = []
    for reader, usual in RUNS.items():
        runs = int(usual * given.times)
        command = [
            sys.executable,
            __file__,
            "--reader",
            reader,
            "--times",
            str(given.times),
            "--keep",
            str(given.keep),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(
            f"{reader:>8}: {runs:,} inputs, {'no failure' if done.returncode == 0 else 'FAILED'}", flush=True
        )
        if done.returncode != 0:
            failed.append(reader)
            print(done.stdout[-4_000:], done.stderr[-4_000:], sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
