"""What stands under the letters of a sequence: features, concepts, paired nucleotides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from helix_sae.errors import DataError
from helix_sae.explorer.records import Record
from helix_sae.explorer.session import Feature, Reading, Session
from helix_sae.mrna.annotations import annotate_table
from helix_sae.mrna.structure import fold

LONGEST_FOLD = 2000
"""Nucleotides; folding more takes more than a second."""


class Track(NamedTuple):
    """Activation of one feature along a sequence.

    Attributes
    ----------
    feature : Feature
    values : float32 (length,)
        On each nucleotide.
    usual : float
        The largest activation on sequences of the training, by which tracks are made comparable.
    """

    feature: Feature
    values: Float[np.ndarray, " length"]
    usual: float

    @property
    def strength(self) -> float:
        """Largest activation in shares of the usual largest one; 0 for a feature that was never active there."""
        return float(self.values.max()) / self.usual if self.usual > 0 else 0.0


class Span(NamedTuple):
    """A concept that holds from ``start`` to before ``end``."""

    start: int
    end: int


def activations_along(session: Session, reading: Reading, features: Sequence[Feature]) -> list[Track]:
    """Activations of chosen features along a sequence."""
    kept = np.flatnonzero(reading.tokens.is_nucleotide)
    return [
        Track(
            feature,
            reading.codes[feature.site][:, feature.number].cpu().numpy()[kept],
            float(session.reference.highest[feature.site][feature.number]),
        )
        for feature in features
    ]


def strongest(session: Session, reading: Reading, n: int) -> list[Track]:
    """The features that come nearest to, or exceed, their usual largest activation somewhere on the sequence.

    Raw activations of two features have no common unit, so each is measured against its own.
    """
    scored: list[tuple[float, Feature]] = []
    for site in session.sites:
        usual = session.reference.highest[site]
        top = reading.on_letters(site).max(axis=0)
        share = np.divide(top, usual, out=np.zeros(len(usual)), where=usual > 0)
        scored += [(float(share[i]), Feature(site, int(i))) for i in np.flatnonzero(share > 0)]
    scored.sort(key=lambda pair: -pair[0])
    return activations_along(session, reading, [feature for _, feature in scored[:n]])


def concept_tracks(record: Record) -> dict[str, list[Span]]:
    """Where each concept holds, by its name; those that hold nowhere, or cannot be known here, are left out."""
    table = pd.DataFrame(
        {
            "sequence_id": [record.name],
            "sequence": [record.sequence],
            "cds_start": pd.array([record.cds_start], dtype="Int64"),
            "cds_end": pd.array([record.cds_end], dtype="Int64"),
        }
    )
    found = annotate_table(table)
    dense = found.labels.toarray()
    spans = {name: _runs(dense[:, i]) for i, name in enumerate(found.concepts) if bool(found.known[0, i])}
    return {name: runs for name, runs in spans.items() if runs}


def paired(record: Record) -> tuple[list[tuple[int, int]], float]:
    """Base pairs of the minimum free energy structure, and its energy in kcal/mol.

    Raises
    ------
    ConfigurationError
        Without ViennaRNA.
    DataError
        If the sequence is longer than 2,000 nt.
    """
    if len(record.sequence) > LONGEST_FOLD:
        raise DataError(f"{len(record.sequence)} nt are too many to fold here; {LONGEST_FOLD} can be.")
    structure = fold([record.sequence])[0]
    pairs: list[tuple[int, int]] = []
    open_: list[int] = []
    for position, mark in enumerate(structure.dot_bracket):
        if mark == "(":
            open_.append(position)
        elif mark == ")":
            pairs.append((open_.pop(), position))
    return sorted(pairs), structure.mfe


def _runs(mask: np.ndarray) -> list[Span]:
    steps = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return [Span(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
