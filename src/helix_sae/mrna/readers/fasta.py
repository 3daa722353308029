"""Reader of FASTA."""

from __future__ import annotations

from typing import IO

from Bio.SeqIO.FastaIO import SimpleFastaParser

from helix_sae.errors import DataError
from helix_sae.mrna.readers.files import read_lines
from helix_sae.mrna.records import RawRecord, RawRecords, RejectedRecord


def read_fasta(stream: IO[bytes], name: str) -> RawRecords:
    """Read FASTA; the first word of a title is the ``sequence_id``."""
    lines = read_lines(stream, name)
    start = lines.getvalue().lstrip()[:1]
    if start == "@":
        raise DataError(
            f"{name}: looks like FASTQ, which is for reads of a sequencer; give FASTA of transcripts."
        )
    if start and start != ">":
        raise DataError(f"{name}: not FASTA: the first record does not start with '>'.")
    result = RawRecords([], [])
    for index, (title, sequence) in enumerate(SimpleFastaParser(lines)):
        words = title.split(None, 1)
        if not words:
            result.rejected.append(
                RejectedRecord(name, f"record {index}", "sequence_id", "the title after '>' is empty")
            )
            continue
        result.records.append(
            RawRecord(name, f"record {index}", {"sequence_id": words[0], "sequence": sequence})
        )
    return result
