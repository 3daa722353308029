"""Search by example: which features are active in these sequences and silent in those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse

from helix_sae.errors import DataError
from helix_sae.explorer.records import Record
from helix_sae.explorer.session import Check, Session, go_on
from helix_sae.names import feature_name
from helix_sae.statistics.association import mann_whitney
from helix_sae.statistics.multiple_testing import adjust
from helix_sae.statistics.small_samples import MOST_DIVISIONS, divisions, exact_rank_sum

LEAST = 3
"""Sequences that each set needs."""


class Contrast(NamedTuple):
    """Features tested between two sets.

    Attributes
    ----------
    table : DataFrame
        A row a feature that is active somewhere: ``name, site, feature, mean_here, mean_there``
        (activation over nucleotides), ``share_here, share_there`` (of sequences on which it is active),
        ``effect`` (probability that one from here has more than one from there, minus the reverse: -1 to
        1), ``p_value``, ``q_value`` (Benjamini-Hochberg over all of these features). The most certain
        first.
    exact : bool
        Whether all divisions of the sequences into two such sets were counted; else a normal approximation
        with ties.
    """

    table: pd.DataFrame
    exact: bool


def contrast(
    session: Session, here: Sequence[Record], there: Sequence[Record], check: Check = go_on
) -> Contrast:
    """Test every feature's mean activation between two sets of sequences (Wilcoxon's rank-sum test, two-sided).

    Sequences count as independent: leave one of each group of near copies.

    Raises
    ------
    DataError
        If a set has fewer than three sequences, or the sets share one.
    """
    for name, records in (("here", here), ("there", there)):
        if len(records) < LEAST:
            raise DataError(
                f"The set {name!r} has {len(records)} sequences; a test needs at least {LEAST} of each."
            )
    shared = {one.sequence for one in here} & {one.sequence for one in there}
    if shared:
        raise DataError(f"{len(shared)} sequences stand in both sets; take them out of one.")
    pooled = session.pooled([*here, *there], check)
    values = np.concatenate([pooled[site] for site in session.sites], axis=1)
    is_here = np.arange(len(values)) < len(here)
    keys = [(site, i) for site in session.sites for i in range(pooled[site].shape[1])]
    alive = np.flatnonzero((values > 0).any(axis=0))
    values = values[:, alive]
    check()
    exact = divisions(len(here), len(there)) <= MOST_DIVISIONS
    effect, p_value = exact_rank_sum(values, is_here) if exact else _approximate(values, is_here)
    table = pd.DataFrame(
        {
            "name": [feature_name(*keys[i]) for i in alive],
            "site": [keys[i][0] for i in alive],
            "feature": [keys[i][1] for i in alive],
            "mean_here": values[is_here].mean(axis=0),
            "mean_there": values[~is_here].mean(axis=0),
            "share_here": (values[is_here] > 0).mean(axis=0),
            "share_there": (values[~is_here] > 0).mean(axis=0),
            "effect": effect,
            "p_value": p_value,
            "q_value": adjust(p_value),
        }
    )
    order = table.assign(size=-table["effect"].abs()).sort_values(["p_value", "size"], kind="stable").index
    return Contrast(table.loc[order].reset_index(drop=True), exact)


def _approximate(values: np.ndarray, is_here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = mann_whitney(scipy.sparse.csr_array(values), is_here.astype(np.float64))
    return found.effect[:, 0], found.p_value[:, 0]
