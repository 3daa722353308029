"""Reference tables against independent copies of the same facts."""

from __future__ import annotations

import numpy as np
import pytest
from Bio.Data import CodonTable
from python_codon_tables import get_codons_table

from helix_sae.mrna.tables import (
    CODON_STABILITY,
    CODON_USAGE,
    CODONS,
    GENETIC_CODE,
    MIRNA_SEEDS,
    RELATIVE_ADAPTIVENESS,
    RELATIVE_USAGE,
    STABILITY,
    STOPS,
)


def test_genetic_code():
    standard = CodonTable.unambiguous_rna_by_id[1]
    assert {codon: standard.forward_table.get(codon, "*") for codon in CODONS} == dict(GENETIC_CODE)
    assert sorted(standard.stop_codons) == sorted(STOPS)


def test_codon_index_follows_the_nucleotide_codes():
    for index, codon in enumerate(CODONS):
        assert codon == "".join("ACGU"[digit] for digit in (index // 16, index // 4 % 4, index % 4))


def test_usage_agrees_with_the_published_shares():
    published = get_codons_table("h_sapiens_9606")
    for shares in published.values():
        for codon, share in shares.items():
            assert RELATIVE_USAGE[CODONS.index(codon.replace("T", "U"))] == pytest.approx(share, abs=0.0061)


def test_usage_is_complete():
    assert set(CODON_USAGE) == set(CODONS)
    assert sum(CODON_USAGE.values()) == pytest.approx(1000, abs=1)
    assert RELATIVE_ADAPTIVENESS.max() == 1.0
    for amino in set(GENETIC_CODE.values()):
        members = [i for i, codon in enumerate(CODONS) if GENETIC_CODE[codon] == amino]
        assert RELATIVE_USAGE[members].sum() == pytest.approx(1)
        assert RELATIVE_ADAPTIVENESS[members].max() == 1.0


def test_stability_covers_the_sense_codons():
    assert set(CODON_STABILITY) == set(CODONS) - set(STOPS)
    assert np.isnan(STABILITY).sum() == 3
    assert np.nanmax(np.abs(STABILITY)) < 0.2


def test_stability_follows_the_amino_acids_of_the_paper():
    """Forrest et al. report valine, isoleucine and tyrosine as stabilising, serine and histidine as not."""
    mean = {
        amino: np.mean([CODON_STABILITY[codon] for codon in CODON_STABILITY if GENETIC_CODE[codon] == amino])
        for amino in "VIYSHC"
    }
    assert min(mean[amino] for amino in "VIY") > 0 > max(mean[amino] for amino in "SHC")


def test_seeds_are_seven_nucleotides():
    assert all(len(seed) == 7 and set(seed) <= set("ACGU") for seed in MIRNA_SEEDS.values())
