"""Minimum free energy structures, by ViennaRNA when it is installed.

Folding is local: pairs span at most 100 nucleotides, which is about what an mRNA under translation can hold,
and which makes transcripts of thousands of nucleotides affordable (2,000 nt take under a second instead of
several).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from helix_sae.errors import ConfigurationError

MAX_BP_SPAN = 100


class Structure(NamedTuple):
    """Predicted secondary structure: dot-bracket string and free energy in kcal/mol."""

    dot_bracket: str
    mfe: float


def viennarna_available() -> bool:
    """Whether the optional package ViennaRNA can be imported."""
    return find_spec("RNA") is not None


def fold(sequences: Sequence[str], max_bp_span: int = MAX_BP_SPAN) -> list[Structure]:
    """Fold sequences to their minimum free energy structure.

    Parameters
    ----------
    sequences : sequence of str
        RNA sequences.
    max_bp_span : int
        Largest distance between paired nucleotides.

    Raises
    ------
    ConfigurationError
        When ViennaRNA is not installed.

    References
    ----------
    Lorenz R et al. ViennaRNA Package 2.0. Algorithms Mol Biol. 2011;6:26.
    """
    if not viennarna_available():
        raise ConfigurationError(
            "secondary structure was asked for but ViennaRNA is not installed; "
            "install the `structure` extra or turn structure off"
        )
    rna: Any = importlib.import_module("RNA")
    structures: list[Structure] = []
    for sequence in sequences:
        if not sequence:
            structures.append(Structure("", 0.0))
            continue
        model = rna.md()
        model.max_bp_span = max_bp_span
        dot_bracket, mfe = rna.fold_compound(sequence, model).mfe()
        structures.append(Structure(dot_bracket, float(mfe)))
    return structures
