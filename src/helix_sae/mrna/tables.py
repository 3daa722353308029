"""Reference tables: the genetic code, human codon usage and a few well-studied miRNAs.

References
----------
Nakamura Y, Gojobori T, Ikemura T. Codon usage tabulated from international DNA sequence databases: status for
the year 2000. Nucleic Acids Res. 2000;28:292 (the Kazusa database; Homo sapiens, taxon 9606, 93,487 coding
sequences).

Forrest ME, Pinkard O, Martin S, Sweet TJ, Hanson G, Coller J. Codon and amino acid content are associated
with mRNA stability in mammalian cells. PLoS ONE. 2020;15:e0228730. The coefficients here are those of HeLa
cells.

Burke PC, Park H, Subramaniam AR. A nascent peptide code for translational control of mRNA stability in human
cells. Nat Commun. 2022;13:6829. The table of earlier codon effects that accompanies its code
(github.com/rasilab/burke_2022) is where the HeLa coefficients of Forrest et al. were read, and rounded to
four decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

BASES = "ACGU"
CODONS: tuple[str, ...] = tuple(a + b + c for a in BASES for b in BASES for c in BASES)
"""The 64 codons; codon ``i`` has the nucleotide codes ``i // 16, i // 4 % 4, i % 4``."""

_AMINO_ACIDS = "KNKNTTTTRSRSIIMIQHQHPPPPRRRRLLLLEDEDAAAAGGGGVVVV*Y*YSSSS*CWCLFLF"

GENETIC_CODE: Mapping[str, str] = MappingProxyType(dict(zip(CODONS, _AMINO_ACIDS, strict=True)))
"""Codon to one-letter amino acid, ``*`` for stop."""

STOPS = ("UAA", "UAG", "UGA")


def _pairs(text: str) -> list[tuple[str, str]]:
    """Split "codon value codon value ..." into pairs."""
    words = text.split()
    return list(zip(words[::2], words[1::2], strict=True))


_USAGE_PER_THOUSAND = """
UUU 17.6 UCU 15.2 UAU 12.2 UGU 10.6 UUC 20.3 UCC 17.7 UAC 15.3 UGC 12.6
UUA 7.7 UCA 12.2 UAA 1.0 UGA 1.6 UUG 12.9 UCG 4.4 UAG 0.8 UGG 13.2
CUU 13.2 CCU 17.5 CAU 10.9 CGU 4.5 CUC 19.6 CCC 19.8 CAC 15.1 CGC 10.4
CUA 7.2 CCA 16.9 CAA 12.3 CGA 6.2 CUG 39.6 CCG 6.9 CAG 34.2 CGG 11.4
AUU 16.0 ACU 13.1 AAU 17.0 AGU 12.1 AUC 20.8 ACC 18.9 AAC 19.1 AGC 19.5
AUA 7.5 ACA 15.1 AAA 24.4 AGA 12.2 AUG 22.0 ACG 6.1 AAG 31.9 AGG 12.0
GUU 11.0 GCU 18.4 GAU 21.8 GGU 10.8 GUC 14.5 GCC 27.7 GAC 25.1 GGC 22.2
GUA 7.1 GCA 15.8 GAA 29.0 GGA 16.5 GUG 28.1 GCG 7.4 GAG 39.6 GGG 16.5
"""

CODON_USAGE: Mapping[str, float] = MappingProxyType(
    {codon: float(value) for codon, value in _pairs(_USAGE_PER_THOUSAND)}
)
"""Occurrences per thousand codons in human coding sequences (Kazusa 9606)."""

STOP_FREQUENCIES: Mapping[str, float] = MappingProxyType({"UAA": 0.30, "UAG": 0.24, "UGA": 0.47})
"""Share of each stop codon in human coding sequences (rounded: they sum to 1.01)."""


_STABILITY = """
AAA -0.0139 AAC 0.0167 AAG 0.0633 AAU -0.0075 ACA -0.0115 ACC 0.0388 ACG -0.0020 ACU -0.0167
AGA -0.0690 AGC -0.1115 AGG -0.1035 AGU -0.1157 AUA -0.0099 AUC 0.1121 AUG 0.1168 AUU 0.0877
CAA -0.0751 CAC -0.0848 CAG -0.0823 CAU -0.0761 CCA -0.0602 CCC -0.0632 CCG -0.0255 CCU -0.0465
CGA 0.0073 CGC 0.0021 CGG -0.0235 CGU 0.0352 CUA 0.0001 CUC 0.0089 CUG 0.0241 CUU -0.0030
GAA -0.0347 GAC 0.0099 GAG -0.0374 GAU 0.0396 GCA 0.0361 GCC 0.0356 GCG 0.0110 GCU 0.1011
GGA 0.0687 GGC 0.0252 GGG -0.0043 GGU 0.0874 GUA 0.0364 GUC 0.0598 GUG 0.0757 GUU 0.0667
UAC 0.0815 UAU 0.0721 UCA -0.1067 UCC -0.0846 UCG -0.0516 UCU -0.0779 UGC -0.0456 UGG 0.0433
UGU -0.0814 UUA -0.0508 UUC 0.0593 UUG 0.0141 UUU 0.0473
"""

CODON_STABILITY: Mapping[str, float] = MappingProxyType(
    {codon: float(value) for codon, value in _pairs(_STABILITY)}
)
"""Codon stability coefficients of the 61 sense codons in HeLa cells (Forrest et al. 2020).

The Pearson correlation between a codon's frequency in an mRNA and that mRNA's half-life, from -1 to 1:
positive means that the codon goes with stable mRNAs. Stop codons have none.
"""


def _synonymous(reduce: str) -> Float[np.ndarray, " 64"]:
    """Usage of each codon divided by the ``sum`` or ``max`` over its synonymous codons."""
    usage = np.array([CODON_USAGE[codon] for codon in CODONS])
    amino = np.array(list(_AMINO_ACIDS))
    total = np.array([getattr(usage[amino == a], reduce)() for a in amino])
    return usage / total


RELATIVE_USAGE: Float[np.ndarray, " 64"] = _synonymous("sum")
"""Share of each codon among those of its amino acid, in the order of ``CODONS``."""

RELATIVE_ADAPTIVENESS: Float[np.ndarray, " 64"] = _synonymous("max")
"""Usage relative to the commonest synonymous codon (w of Sharp and Li 1987), in the order of ``CODONS``."""

STABILITY: Float[np.ndarray, " 64"] = np.array([CODON_STABILITY.get(codon, np.nan) for codon in CODONS])
"""``CODON_STABILITY`` in the order of ``CODONS``; NaN for stops."""

MIRNA_SEEDS: Mapping[str, str] = MappingProxyType(
    {
        "let-7-5p": "GAGGUAG",
        "miR-1-3p": "GGAAUGU",
        "miR-16-5p": "AGCAGCA",
        "miR-21-5p": "AGCUUAU",
        "miR-122-5p": "GGAGUGU",
        "miR-124-3p": "AAGGCAC",
        "miR-155-5p": "UAAUGCU",
    }
)
"""Seeds (nucleotides 2 to 8) of human miRNAs: the default list wherever seeds are a parameter."""
