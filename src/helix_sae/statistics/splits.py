"""Splits that keep related sequences together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from helix_sae.errors import AnalysisError, ConfigurationError, DataError


def _uniform(seed: int, cluster: str) -> float:
    """A number in [0, 1) that depends on the seed and the cluster's name alone."""
    digest = hashlib.blake2b(f"{seed}:{cluster}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def split_by_cluster(clusters: Any, fractions: Mapping[str, float], seed: int) -> pd.Series:
    """Assign every sequence to a part, whole clusters at a time.

    The part of a cluster follows from a hash of (seed, cluster name) alone: it does not depend on the order
    or the number of sequences, and stays the same when sequences are added.

    Parameters
    ----------
    clusters : sequence of str, or Series, (n_sequences,)
        Cluster of each sequence: gene, family or mother. The index of a Series is kept.
    fractions : mapping part -> share
        Expected share of clusters in each part, in order; shares are positive and sum to 1.
    seed : int
        Another seed gives another split.

    Returns
    -------
    Series of str (n_sequences,), named ``split``

    Raises
    ------
    ConfigurationError
        If the shares are not positive or do not sum to 1.
    DataError
        If a sequence has no cluster.
    AnalysisError
        If a part is left without a sequence.
    """
    shares = np.array([float(share) for share in fractions.values()])
    if len(shares) == 0 or (shares <= 0).any() or abs(shares.sum() - 1.0) > 1e-9:
        raise ConfigurationError(f"Split fractions must be positive and sum to 1, but are {dict(fractions)}.")
    labels = clusters if isinstance(clusters, pd.Series) else pd.Series(list(clusters), dtype="object")
    missing = np.flatnonzero(labels.isna().to_numpy())
    if len(missing):
        raise DataError(
            f"Column 'cluster' is empty for {len(missing)} sequences (first: row {missing[0]}); a sequence "
            "without a cluster cannot be kept apart from its relatives. Use its sequence_id if it has none."
        )
    parts = list(fractions)
    bounds = np.cumsum(shares)[:-1]
    part_of = {
        cluster: parts[int(np.searchsorted(bounds, _uniform(seed, str(cluster)), side="right"))]
        for cluster in pd.unique(labels)
    }
    split = labels.map(part_of).astype("object").rename("split")
    empty = [part for part in parts if not (split == part).any()]
    if empty:
        raise AnalysisError(
            f"The split by cluster leaves no sequence for {', '.join(empty)}: {len(part_of)} clusters hold "
            f"{len(labels)} sequences. Give more clusters, larger fractions or another seed."
        )
    return split
