"""Simulated sequences as records of the raw JSON schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from helix_sae.errors import ConfigurationError
from helix_sae.mrna import properties
from helix_sae.mrna.tables import CODONS

MEASURED = ("mrl", "te", "expression_level", "half_life")


def to_records(
    frame: pd.DataFrame,
    rng: np.random.Generator,
    *,
    missing_fraction: float = 0.1,
    source: str = "simulation",
) -> list[dict[str, Any]]:
    """Turn a simulated table into records of the raw JSON schema.

    Parameters
    ----------
    frame : DataFrame
        As the simulator returns it. The noiseless ``*_true`` columns are left out: they are the truth, not
        data.
    rng : numpy.random.Generator
        Source of randomness for the missing labels.
    missing_fraction : float
        Share of the measured labels that a record lacks; the key is then absent, not 0 and not null.
    source : str
        ``metadata.source`` of every record.

    Returns
    -------
    list of dict
        ``sequence`` (DNA letters), ``annotations`` (functional: mrl, te, expression_level, half_life;
        structural: length, gc_content; regulatory: uorf_count, uaug_count and, for whole transcripts,
        codon_usage) and ``metadata`` (source, cell_line, data_type, gene_id, cds_start, cds_end). Numbers are
        rounded.
    """
    if not 0 <= missing_fraction < 1:
        raise ConfigurationError(
            f"missing_fraction is {missing_fraction}; it has to be at least 0 and below 1"
        )
    computed = properties.compute_properties(frame)
    usage = properties.codon_usage(frame).to_numpy()
    labels = {
        name: frame[name].to_numpy(dtype=np.float64, copy=True) for name in MEASURED if name in frame.columns
    }
    for values in labels.values():
        values[rng.random(len(values)) < missing_fraction] = np.nan
    records: list[dict[str, Any]] = []
    for row, (sequence, start, end, family) in enumerate(_core(frame)):
        functional = {
            name: round(float(values[row]), 6)
            for name, values in labels.items()
            if values[row] == values[row]
        }
        structural = {
            "length": len(sequence),
            "gc_content": round(float(computed["structural_gc_content"].iloc[row]), 6),
        }
        regulatory: dict[str, Any] = {
            name: int(computed[f"regulatory_{name}"].iloc[row]) for name in ("uorf_count", "uaug_count")
        }
        metadata: dict[str, Any] = {
            "source": source,
            "cell_line": "simulated",
            "data_type": "construct" if end is None else "transcript",
            "gene_id": family,
            "cds_start": start,
        }
        if end is not None:
            metadata["cds_end"] = end
            shares = (round(float(share), 4) for share in usage[row])
            regulatory["codon_usage"] = dict(zip(CODONS, shares, strict=True))
        annotations = {"functional": functional, "structural": structural, "regulatory": regulatory}
        records.append(
            {"sequence": sequence.replace("U", "T"), "annotations": annotations, "metadata": metadata}
        )
    return records


def _core(frame: pd.DataFrame) -> Iterator[tuple[str, int, int | None, str]]:
    """Sequence, coding start, coding end (None: beyond the sequence) and family of every row."""
    columns = (frame[name].tolist() for name in ("sequence", "cds_start", "cds_end", "family"))
    for sequence, start, end, family in zip(*columns, strict=True):
        yield sequence, int(start), None if pd.isna(end) else int(end), str(family)
