"""Sequence-level properties that can be computed from an mRNA table.

Whatever needs a coordinate that is not known is missing (NaN), never 0: without ``cds_start`` there is no
5'UTR to count in, and without ``cds_end`` neither a whole coding sequence nor a 3'UTR.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from helix_sae.mrna import codons, structure
from helix_sae.mrna.encoding import count_motif, gc_fraction, parse_motif
from helix_sae.mrna.mechanism import ARE_NONAMER, AugClass, kozak_score, mirna_site
from helix_sae.mrna.regions import Regions, regions_of
from helix_sae.mrna.tables import CODONS, MIRNA_SEEDS
from helix_sae.mrna.uorfs import known_upstream_augs, upstream_orfs

ARE_PENTAMER = parse_motif("AUUUA")
CODON_USAGE_PREFIX = "regulatory_codon_usage_"


def compute_properties(
    table: pd.DataFrame,
    *,
    mirna_seeds: Mapping[str, str] = MIRNA_SEEDS,
    with_mfe: bool = False,
) -> pd.DataFrame:
    """Compute every sequence-level property of an mRNA table.

    Parameters
    ----------
    table : DataFrame
        An mRNA table: ``sequence``, ``cds_start``, ``cds_end``.
    mirna_seeds : mapping of str to str
        Seeds (nucleotides 2 to 8) of the miRNAs whose 8mer sites are counted.
    with_mfe : bool
        Fold every sequence with ViennaRNA (:func:`helix_sae.mrna.structure.fold`).

    Returns
    -------
    DataFrame
        On the index of ``table``, float64 with NaN for missing: the columns of :func:`composition`,
        :func:`upstream_elements`, :func:`codon_measures`, :func:`three_utr_elements`, and ``structural_mfe``
        (kcal/mol) when asked for.

    Raises
    ------
    DataError
        When a sequence or a coordinate is not valid.
    ConfigurationError
        When the free energy is asked for and ViennaRNA is not installed.
    """
    regions = regions_of(table)
    columns = {
        **composition(regions),
        **upstream_elements(regions),
        **codon_measures(regions),
        **three_utr_elements(regions, mirna_seeds),
    }
    if with_mfe:
        folded = structure.fold(table["sequence"].tolist())
        columns["structural_mfe"] = np.array([item.mfe for item in folded], dtype=np.float64)
    return pd.DataFrame(columns, index=table.index, dtype="float64")


def composition(regions: Regions) -> dict[str, Float[np.ndarray, " n"]]:
    """Lengths (nt) and GC fractions (N left out) of the sequence and its regions; NaN for empty ones."""
    whole = regions.flat.lengths
    none = np.zeros(regions.n, dtype=np.int64)
    spans = {
        "5utr": (none, regions.start, regions.has_cds),
        "cds": (regions.start, regions.end, regions.has_end),
        "3utr": (regions.end, whole, regions.has_end),
    }
    columns: dict[str, Float[np.ndarray, " n"]] = {
        "structural_length": whole.astype(np.float64),
        "structural_gc_content": gc_fraction(regions.flat, none, whole),
    }
    for name, (start, end, known) in spans.items():
        columns[f"structural_length_{name}"] = _where(known, end - start)
        columns[f"structural_gc_{name}"] = _where(known, gc_fraction(regions.flat, start, end))
    return columns


def upstream_elements(regions: Regions) -> dict[str, Float[np.ndarray, " n"]]:
    """Count upstream AUGs and uORFs by class and score the main start (bits); NaN without ``cds_start``."""
    augs = known_upstream_augs(regions)
    orfs = upstream_orfs(regions)
    per_class = {
        name: np.bincount(augs.record[augs.kind == kind], minlength=regions.n)
        for name, kind in (
            ("overlapping", AugClass.OVERLAPPING),
            ("contained", AugClass.CONTAINED),
            ("in_frame", AugClass.IN_FRAME),
        )
    }
    counts = {
        "uaug_count": np.bincount(augs.record, minlength=regions.n),
        **{f"uaug_{name}_count": value for name, value in per_class.items()},
        "uorf_count": np.bincount(orfs.record, minlength=regions.n),
        "uorf_contained_count": np.bincount(orfs.record[orfs.contained], minlength=regions.n),
        "uorf_overlapping_count": np.bincount(orfs.record[~orfs.contained], minlength=regions.n),
        "kozak_score": kozak_score(regions.flat, np.arange(regions.n), regions.start),
    }
    return {f"regulatory_{name}": _where(regions.has_cds, value) for name, value in counts.items()}


def codon_measures(regions: Regions) -> dict[str, Float[np.ndarray, " n"]]:
    """GC3, codon adaptation index (0 to 1) and mean codon stability; NaN without a whole coding sequence."""
    track = _whole_cds(regions)
    return {
        "structural_gc3": codons.gc3_content(regions.flat, track, regions.n),
        "regulatory_codon_adaptation": np.exp(codons.log_adaptation(track, regions.n)),
        "regulatory_csc": codons.mean_stability(track, regions.n),
    }


def three_utr_elements(
    regions: Regions, mirna_seeds: Mapping[str, str] = MIRNA_SEEDS
) -> dict[str, Float[np.ndarray, " n"]]:
    """AU-rich elements and miRNA 8mers in the 3'UTR, overlapping ones included; NaN without ``cds_end``."""
    motifs = {"are_count": [ARE_PENTAMER], "are_nonamer_count": [ARE_NONAMER]}
    motifs["mirna_site_count"] = [mirna_site(seed) for seed in mirna_seeds.values()]
    whole = regions.flat.lengths
    counts = {
        name: sum(
            (count_motif(regions.flat, motif, regions.end, whole) for motif in patterns),
            np.zeros(regions.n, dtype=np.int64),
        )
        for name, patterns in motifs.items()
    }
    return {f"regulatory_{name}": _where(regions.has_end, value) for name, value in counts.items()}


def codon_usage(table: pd.DataFrame) -> pd.DataFrame:
    """Share of each codon among all codons of the coding sequence.

    Parameters
    ----------
    table : DataFrame
        An mRNA table: ``sequence``, ``cds_start``, ``cds_end``.

    Returns
    -------
    DataFrame
        64 columns ``regulatory_codon_usage_<codon>``, rows that sum to 1 (codons with an N left out), NaN
        without a whole coding sequence.
    """
    regions = regions_of(table)
    track = _whole_cds(regions)
    known = track.codon < len(CODONS)
    index = track.record[known] * len(CODONS) + track.codon[known]
    count = np.bincount(index, minlength=regions.n * len(CODONS)).reshape(regions.n, len(CODONS))
    total = count.sum(axis=1, keepdims=True)
    share = np.divide(count, total, out=np.full(count.shape, np.nan), where=total > 0)
    return pd.DataFrame(
        share, index=table.index, columns=pd.Index([CODON_USAGE_PREFIX + codon for codon in CODONS])
    )


def _whole_cds(regions: Regions) -> codons.CodonTrack:
    """Codons of the coding sequences of which both ends are known."""
    unknown = np.where(regions.has_end, 0, -1)
    return codons.codon_track(
        regions.flat,
        np.where(regions.has_end, regions.start, unknown),
        np.where(regions.has_end, regions.end, unknown),
    )


def _where(
    known: Bool[np.ndarray, " n"], value: Int[np.ndarray, " n"] | Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    return np.where(known, value.astype(np.float64), np.nan)
