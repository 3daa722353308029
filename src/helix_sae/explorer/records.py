"""What people paste: a sequence or FASTA, in DNA or RNA letters, with the start codon marked, told or looked for."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import pandas as pd
from Bio.SeqIO.FastaIO import SimpleFastaParser

from helix_sae.errors import DataError
from helix_sae.mrna.records import normalise_sequence
from helix_sae.mrna.tables import STOPS
from helix_sae.mrna.tokens import CodonMarkers, TokenizedSequence, tokenize
from helix_sae.mrna.values import FieldError

StartRule = Literal["marked", "find", "none"]
"""Where the start codon is: where a ``|`` stands before it and else nowhere; there, or where the longest open
reading frame begins; nowhere."""

StartFrom = Literal["told", "marked", "found", "unknown"]

MARK = "|"
_LONGEST_NAME = 120


class Record(NamedTuple):
    """One sequence as it is read.

    Attributes
    ----------
    name : str
        As it was given: any text.
    sequence : str
        ``ACGUN``.
    cds_start, cds_end : int or None
        Coding region, 0-based half-open; the end is missing where no stop codon is in frame.
    start_from : {"told", "marked", "found", "unknown"}
        How the start codon is known.
    """

    name: str
    sequence: str
    cds_start: int | None = None
    cds_end: int | None = None
    start_from: StartFrom = "unknown"

    def tokens(self, codon_markers: CodonMarkers) -> TokenizedSequence:
        """The sequence as the model reads it."""
        return tokenize(self.sequence, self.cds_start, self.cds_end, codon_markers)


def make_record(
    sequence: str, *, name: str = "sequence", cds_start: int | None = None, rule: StartRule = "marked"
) -> Record:
    """Read one sequence.

    Parameters
    ----------
    sequence : str
        Letters ``ACGTUN`` in either case, white space, and at most one ``|`` before the start codon.
    name : str
    cds_start : int, optional
        First nucleotide of the start codon, from 0; goes before ``rule``.
    rule : {"marked", "find", "none"}
        See :data:`StartRule`.

    Raises
    ------
    DataError
        Naming the sequence and what is wrong with it.
    """
    name = name[:_LONGEST_NAME]
    letters = re.sub(r"\s+", "", sequence)
    head, mark, tail = letters.partition(MARK)
    if MARK in tail:
        raise DataError(f"{name}: more than one {MARK!r}; it marks the start codon, so write it once.")
    try:
        clean = normalise_sequence(head + tail)
    except FieldError as error:
        raise DataError(f"{name}: {error.reason}") from error
    start, start_from = _start(clean, len(head) if mark else None, cds_start, rule)
    if start is not None and not 0 <= start <= len(clean) - 3:
        raise DataError(
            f"{name}: no codon of this sequence of {len(clean)} nt begins at position {start} (from 0);"
            " correct the start codon, or leave it open."
        )
    return Record(name, clean, start, None if start is None else stop_after(clean, start), start_from)


def record_of(row: Mapping[Any, Any]) -> Record:
    """A row of the table of sequences."""
    start, end = (None if pd.isna(row[name]) else int(row[name]) for name in ("cds_start", "cds_end"))
    return Record(str(row["sequence_id"]), str(row["sequence"]), start, end, "told")


def pasted_records(text: str, *, rule: StartRule = "marked") -> list[Record]:
    """Read a pasted sequence, or FASTA with any number of them.

    Raises
    ------
    DataError
        If there is none, or one cannot be read.
    """
    text = text.strip()
    if not text:
        raise DataError("There is no sequence: paste letters, or FASTA.")
    if not text.startswith(">"):
        return [make_record(text, rule=rule)]
    found = SimpleFastaParser(io.StringIO(text))
    return [
        make_record(sequence, name=(title.split() or [f"record {i}"])[0], rule=rule)
        for i, (title, sequence) in enumerate(found, start=1)
    ]


def longest_orf(sequence: str) -> int | None:
    """Start of the longest open reading frame, the first of equals; None without an AUG.

    A frame runs from an AUG to the first stop codon in frame, or to the end of the sequence.
    """
    found: list[tuple[int, int]] = []
    for frame in range(3):
        start: int | None = None
        # One walk a frame: of the AUGs before a stop, the first has the longest frame.
        for position in range(frame, len(sequence) - 2, 3):
            codon = sequence[position : position + 3]
            if start is None and codon == "AUG":
                start = position
            elif start is not None and codon in STOPS:
                found.append((start - position - 3, start))
                start = None
        if start is not None:
            found.append((start - len(sequence), start))
    return min(found)[1] if found else None


def stop_after(sequence: str, start: int) -> int | None:
    """Position after the first stop codon in frame; None where there is none."""
    for position in range(start + 3, len(sequence) - 2, 3):
        if sequence[position : position + 3] in STOPS:
            return position + 3
    return None


def _start(
    sequence: str, marked: int | None, told: int | None, rule: StartRule
) -> tuple[int | None, StartFrom]:
    if told is not None:
        return told, "told"
    if rule != "none" and marked is not None:
        return marked, "marked"
    if rule == "find" and (found := longest_orf(sequence)) is not None:
        return found, "found"
    return None, "unknown"
