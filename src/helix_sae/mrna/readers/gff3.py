"""Coding regions of transcripts from GFF3, beside a FASTA file.

The coordinates are those of the transcripts themselves. A coding region that is cut at its 5' end (a first
``CDS`` of phase 1 or 2, or marked so by NCBI's ``start_range`` or Ensembl's ``cds_start_NF``) has no start in
the transcript: that sequence is rejected by name, as codons marked from there would be out of frame or begin
with a start codon that is none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import IO, NamedTuple
from urllib.parse import unquote

from helix_sae.errors import DataError
from helix_sae.mrna.readers.files import has_suffix, read_lines

_LONGEST_NUMBER = 15  # digits of a position; Python refuses to convert thousands of them
_TYPES: Mapping[str, str] = {
    "CDS": "cds",
    "SO:0000316": "cds",
    "UTR5": "utr5",
    "five_prime_UTR": "utr5",
    "SO:0000204": "utr5",
    "UTR3": "utr3",
    "three_prime_UTR": "utr3",
    "SO:0000205": "utr3",
}
_GTF_ATTRIBUTE = re.compile(r'\s*\w+ "')
_CUT_START = re.compile(r"(?:^|;)\s*start_range=\.|cds_start_NF")
_CUT_END = re.compile(r"(?:^|;)\s*end_range=[^;]*,\s*\.|cds_end_NF")
_GTF_NAMES = (".gtf", ".gff2")


class Feature(NamedTuple):
    """One line of the file that says where a region lies.

    Attributes
    ----------
    start, end : int
        0-based half-open.
    phase : int or None
        Nucleotides to leave out before the next whole codon; None where the file does not say.
    attributes : str
    """

    start: int
    end: int
    phase: int | None
    attributes: str


class CodingRegions(NamedTuple):
    """Coding regions of the sequences of a file.

    Attributes
    ----------
    regions : dict
        Sequence id -> (start, end), 0-based half-open; the end is None where the coding region is cut at its
        3' end.
    refused : dict
        Sequence id -> why its coding region cannot be used.
    """

    regions: dict[str, tuple[int, int | None]]
    refused: dict[str, str]


def read_gff3_coding_regions(stream: IO[bytes], name: str) -> CodingRegions:
    """Coding region of each sequence of a GFF3 file whose coordinates are those of the transcripts themselves.

    Features of the types ``CDS``, ``UTR5`` or ``five_prime_UTR``, ``UTR3`` or ``three_prime_UTR`` (or their
    numbers in the Sequence Ontology) are read; a sequence with both UTRs and no ``CDS`` codes in between.
    Other features are left out.

    Raises
    ------
    DataError
        If a line is malformed, the file is GTF or says nothing of coding regions, the features of a sequence
        are on the reverse strand or the coding ones not adjacent (a genome's annotation, not the
        transcripts'), or a UTR does not end where the coding region begins.
    """
    if has_suffix(name, _GTF_NAMES):
        raise _is_gtf(name)
    parts: dict[str, dict[str, list[Feature]]] = {}
    for number, line in enumerate(read_lines(stream, name), start=1):
        if line.startswith("##FASTA"):
            break
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.rstrip("\n").split("\t")
        place = f"{name}, line {number}"
        if len(fields) != 9:
            raise DataError(f"{place}: {len(fields)} fields where GFF3 has 9, separated by tabs.")
        if _GTF_ATTRIBUTE.match(fields[8]):
            raise _is_gtf(place)
        kind = _TYPES.get(fields[2])
        if kind is None:
            continue
        if fields[6] == "-":
            raise DataError(
                f"{place}: a {fields[2]} on the reverse strand; coordinates must be those of the transcripts"
                " in the FASTA file, not of a genome."
            )
        # GFF3 writes reserved letters of a name in percent notation.
        of_sequence = parts.setdefault(unquote(fields[0]), defaultdict(list))
        of_sequence[kind].append(_feature(fields, place))
    found = CodingRegions({}, {})
    for sequence_id, features in parts.items():
        _add(found, features, sequence_id, name)
    if not found.regions and not found.refused:
        raise DataError(
            f"{name}: no coding region can be read from it: it has neither a CDS nor both UTRs of any"
            " sequence."
        )
    return found


def _is_gtf(place: str) -> DataError:
    return DataError(
        f"{place}: this is GTF, whose CDS leaves out the stop codon; only GFF3 is read. Convert it first, for"
        " example with `gffread in.gtf -o out.gff3`, in the coordinates of the transcripts."
    )


def _feature(fields: list[str], place: str) -> Feature:
    start, end, phase = fields[3], fields[4], fields[7]
    digits = all(
        bound.isascii() and bound.isdigit() and len(bound) <= _LONGEST_NUMBER for bound in (start, end)
    )
    if not digits or not 1 <= int(start) <= int(end):
        raise DataError(f"{place}: {start[:40]!r} to {end[:40]!r} is no range of positions counted from 1.")
    if phase not in ("0", "1", "2", "."):
        raise DataError(f"{place}: the phase {phase[:40]!r} is not 0, 1, 2 or '.'.")
    return Feature(int(start) - 1, int(end), None if phase == "." else int(phase), fields[8])


def _add(found: CodingRegions, features: Mapping[str, list[Feature]], sequence_id: str, name: str) -> None:
    """Coding region of a sequence from its features; nothing where they do not say."""
    ordered = {kind: _adjacent(those, sequence_id, kind, name) for kind, those in features.items()}
    spans = {kind: (those[0].start, those[-1].end) for kind, those in ordered.items()}
    before, coding, after = (spans.get(kind) for kind in ("utr5", "cds", "utr3"))
    if coding is None:
        if before is not None and after is not None and before[1] < after[0]:
            found.regions[sequence_id] = (before[1], after[0])
        return
    for utr, bound, edge in ((before, 1, coding[0]), (after, 0, coding[1])):
        if utr is not None and utr[bound] != edge:
            raise DataError(
                f"{name}, sequence {sequence_id}: the UTR [{utr[0]}, {utr[1]}) is not beside the coding"
                f" region [{coding[0]}, {coding[1]}); correct the one or the other."
            )
    trouble = _trouble_with_frame(ordered["cds"])
    if trouble is not None:
        found.refused[sequence_id] = f"{trouble} ({name})"
        return
    is_cut = any(_CUT_END.search(feature.attributes) for feature in ordered["cds"])
    found.regions[sequence_id] = (coding[0], None if is_cut else coding[1])


def _trouble_with_frame(coding: Iterable[Feature]) -> str | None:
    """Why codons cannot be counted from the first nucleotide of the coding features; None if they can."""
    done = 0
    for feature in coding:
        if done == 0 and feature.phase:
            return (
                f"its first CDS has phase {feature.phase}: its first codon lies before the transcript, and"
                " codons counted from its first nucleotide would be out of frame"
            )
        if _CUT_START.search(feature.attributes):
            return "its CDS is marked as cut at the 5' end: its start codon is not in the transcript"
        if feature.phase is not None and feature.phase != -done % 3:
            return (
                f"the CDS that starts at {feature.start + 1} has phase {feature.phase} where {-done % 3}"
                " follows from those before it: the reading frame shifts"
            )
        done += feature.end - feature.start
    return None


def _adjacent(features: list[Feature], sequence_id: str, kind: str, name: str) -> list[Feature]:
    ordered = sorted(features, key=lambda feature: (feature.start, feature.end))
    for left, right in pairwise(ordered):
        if left.end != right.start:
            raise DataError(
                f"{name}, sequence {sequence_id}: its {'coding' if kind == 'cds' else 'UTR'} features are not"
                f" adjacent (one ends at {left.end}, the next starts at {right.start + 1}); coordinates must"
                " be those of the spliced transcripts."
            )
    return ordered
