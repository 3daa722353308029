"""Reader of GenBank records of transcripts, such as RefSeq's mRNA.

A record is taken as it is meant or rejected by name. The length that its LOCUS line states is compared with
the sequence, so that a file that was cut is not read as shorter transcripts. A coding region whose first
codon lies before the record (``<1..``, or ``/codon_start`` 2 or 3) has no start in the record: the table
cannot hold it, and codons marked from its first nucleotide would be out of frame.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from typing import IO, Any, cast

from Bio import BiopythonWarning
from Bio.Seq import UndefinedSequenceError
from Bio.SeqIO import parse as parse_sequences
from Bio.SeqRecord import SeqRecord

from helix_sae.errors import DataError
from helix_sae.mrna.readers.files import read_lines
from helix_sae.mrna.records import FieldError, RawRecord, RawRecords, RejectedRecord

_log = logging.getLogger(__name__)

_LOCUS = re.compile(r"^LOCUS[ \t].*$", re.MULTILINE)
_LOCUS_LENGTH = re.compile(r"\s(\d{1,15})\s+(?:bp|aa|rc)\b")


def read_genbank(stream: IO[bytes], name: str) -> RawRecords:
    """Read transcripts with their coding regions from GenBank (e.g. RefSeq mRNA).

    A record with one ``CDS`` feature gets its bounds; one whose 3' end is marked as beyond the sequence keeps
    ``cds_end`` missing. A record without one has no coding region, and the log says how many those are. The
    ``gene`` becomes ``metadata_gene_id``.
    """
    lines = read_lines(stream, name)
    lengths = [_stated_length(line) for line in _LOCUS.findall(lines.getvalue())]
    result = RawRecords([], [])
    for index, entry in enumerate(_entries(lines, name)):
        place = f"record {index}"
        try:
            values = _values(entry, lengths[index] if index < len(lengths) else None)
            result.records.append(RawRecord(name, place, values))
        except FieldError as error:
            result.rejected.append(RejectedRecord(name, place, error.field, error.reason))
    if len(lengths) != len(result.records) + len(result.rejected):
        raise DataError(
            f"{name}: {len(lengths)} LOCUS lines and {len(result.records) + len(result.rejected)} records"
            " that can be told apart; the file is cut or damaged. Fetch it again."
        )
    without = sum("cds_start" not in record.values for record in result.records)
    if without:
        _log.warning("%s: %d of %d records have no CDS: no coding region", name, without, len(result.records))
    return result


def _stated_length(locus: str) -> int | None:
    found = _LOCUS_LENGTH.search(locus)
    return int(found.group(1)) if found else None


def _entries(lines: IO[str], name: str) -> Iterator[SeqRecord]:
    """Records as Biopython reads them; what it only warns of is checked here."""
    parsed = cast("Iterator[SeqRecord]", parse_sequences(lines, "genbank"))
    index = 0
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BiopythonWarning)
                entry = next(parsed, None)
        # Biopython's parser raises many kinds of error on a malformed file, none of them its own.
        except Exception as error:
            raise DataError(
                f"{name}, record {index}: not a GenBank record that can be read ({error})."
            ) from error
        if entry is None:
            return
        yield entry
        index += 1


def _values(entry: SeqRecord, stated_length: int | None) -> dict[str, object]:
    """Fields of one record."""
    try:
        sequence = str(entry.seq)
    except UndefinedSequenceError as error:
        raise FieldError("sequence", "the record has no sequence, only its length") from error
    if stated_length is None:
        raise FieldError("sequence", "the LOCUS line states no length, so that a cut record cannot be told")
    if stated_length != len(sequence):
        raise FieldError(
            "sequence",
            f"LOCUS states {stated_length} nt, and the record holds {len(sequence)}: it is cut or damaged;"
            " fetch it again",
        )
    values: dict[str, object] = {"sequence_id": entry.id, "sequence": sequence}
    features = cast("list[Any]", entry.features)
    genes = [
        f.qualifiers["gene"][0] for f in features if f.type in ("gene", "CDS") and f.qualifiers.get("gene")
    ]
    if genes:
        values["metadata_gene_id"] = genes[0]
    regions = [feature for feature in features if feature.type == "CDS"]
    if len(regions) > 1:
        raise FieldError("CDS", f"the record has {len(regions)} coding regions; a transcript has one")
    if regions:
        values.update(_bounds(regions[0]))
    return values


def _bounds(feature: Any) -> dict[str, object]:
    """Bounds of a CDS feature on the forward strand, 0-based half-open."""
    region = feature.location
    if region is None:
        raise FieldError("CDS", "its location cannot be read")
    if region.strand == -1:
        raise FieldError("CDS", "lies on the reverse strand: the record is no transcript (mRNA)")
    if len(region.parts) > 1:
        raise FieldError(
            "CDS", f"is in {len(region.parts)} pieces ({region}): introns, or a shift of the reading frame"
        )
    if type(region.start).__name__ == "BeforePosition":
        raise FieldError("CDS", "starts before the record: its start codon is not in it")
    frame = str(feature.qualifiers.get("codon_start", ["1"])[0]).strip()
    if frame != "1":
        raise FieldError(
            "CDS",
            f"has codon_start={frame}: its first codon lies before the record, and codons counted from its"
            " first nucleotide would be out of frame",
        )
    beyond = type(region.end).__name__ == "AfterPosition"
    return {"cds_start": int(region.start), "cds_end": None if beyond else int(region.end)}
