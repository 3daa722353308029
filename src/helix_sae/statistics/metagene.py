"""Average activation around a landmark (start codon, stop codon), and its three-nucleotide period."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float, Int
from scipy import sparse

from helix_sae.errors import AnalysisError


def metagene_profile(
    codes: Any,
    anchors: Int[np.ndarray, " n_sequences"],
    offsets: Int[np.ndarray, " n_sequences_plus_1"],
    features: Int[np.ndarray, " n_features"],
    *,
    before: int = 30,
    after: int = 60,
) -> pd.DataFrame:
    """Mean activation of features at each position relative to a landmark.

    Parameters
    ----------
    codes : sparse (n_nucleotides, n_all_features)
        Codes of the nucleotide tokens.
    anchors : int (n_sequences,)
        Position of the landmark within each sequence (0-based), negative where there is none.
    offsets : int (n_sequences + 1,)
        Where each sequence's nucleotides start.
    features : int (n_features,)
        Columns that are wanted.
    before, after : int
        Nucleotides shown upstream of the landmark, and from it on.

    Returns
    -------
    DataFrame
        ``feature``, ``position`` (-before to after - 1; 0 is the landmark), ``mean``, ``standard_error``
        (over sequences), ``n_sequences`` that reach that position.

    Raises
    ------
    AnalysisError
        If no sequence has the landmark.
    """
    offsets = np.asarray(offsets, dtype=np.int64)
    anchors = np.asarray(anchors, dtype=np.int64)
    having = np.flatnonzero((anchors >= 0) & (anchors < np.diff(offsets)))
    if not len(having):
        raise AnalysisError("No sequence has the landmark: a metagene profile needs known coding regions.")
    positions = np.arange(-before, after)
    rows = offsets[having][:, None] + anchors[having][:, None] + positions
    inside = (rows >= offsets[having][:, None]) & (rows < offsets[having + 1][:, None])
    place = np.broadcast_to(np.arange(len(positions)), rows.shape)[inside]
    select = sparse.csr_array(
        (np.ones(len(place)), (place, rows[inside])), shape=(len(positions), codes.shape[0])
    )
    chosen = sparse.csr_array(codes)[:, np.asarray(features, dtype=np.int64)].astype(np.float64)
    n = inside.sum(axis=0)
    total = np.asarray((select @ chosen).todense())
    squares = np.asarray((select @ chosen.multiply(chosen)).todense())
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(n[:, None] > 0, total / n[:, None], np.nan)
        variance = (squares - n[:, None] * mean**2) / (n[:, None] - 1)
        error = np.where(n[:, None] > 1, np.sqrt(np.maximum(variance, 0) / n[:, None]), np.nan)
    return pd.DataFrame(
        {
            "feature": np.repeat(np.asarray(features), len(positions)),
            "position": np.tile(positions, len(features)),
            "mean": mean.T.ravel(),
            "standard_error": error.T.ravel(),
            "n_sequences": np.tile(n, len(features)),
        }
    )


def periodicity(profile: pd.DataFrame, period: int = 3) -> pd.DataFrame:
    """How much of each profile downstream of the landmark repeats with the period of codons.

    A straight line is taken out first. ``share`` is the share of the remaining variance at the frequency
    1 / period. Under white noise it follows a Beta(1, (N - 3) / 2) distribution over N positions, which gives
    the p-value (the periodogram ordinate of Fisher 1929 at a frequency fixed in advance).

    Parameters
    ----------
    profile : DataFrame
        From :func:`metagene_profile`; positions from 0 on are used, up to a whole number of periods.
    period : int

    Returns
    -------
    DataFrame
        ``feature``, ``n_positions``, ``share``, ``p_value``, ``phase`` (0 to period - 1: position in the
        period with the largest mean activation, counted from the landmark).
    """
    rows: list[dict[str, Any]] = []
    for feature, group in profile[profile["position"] >= 0].groupby("feature", sort=False):
        values = group.sort_values("position")["mean"].to_numpy(dtype=np.float64)
        known = len(values) if not np.isnan(values).any() else int(np.flatnonzero(np.isnan(values))[0])
        n = known // period * period
        rows.append({"feature": feature, **_period_share(values[:n], period)})
    return pd.DataFrame(rows)


def periodicity_by_side(profile: pd.DataFrame, period: int = 3) -> pd.DataFrame:
    """:func:`periodicity` before and after the landmark: of a codon's period in the CDS, next to none in a UTR.

    Parameters
    ----------
    profile : DataFrame
        From :func:`metagene_profile`. Upstream, the whole periods nearest to the landmark are used.
    period : int

    Returns
    -------
    DataFrame
        ``side`` (``upstream`` or ``downstream``) and the columns of :func:`periodicity`; ``phase`` counts
        from the landmark on either side (upstream, -period has phase 0).
    """
    upstream = profile[profile["position"] < 0]
    n = -int(upstream["position"].min()) // period * period if len(upstream) else 0
    shifted = upstream[upstream["position"] >= -n].assign(position=lambda t: t["position"] + n)
    sides = (("upstream", shifted), ("downstream", profile[profile["position"] >= 0]))
    return pd.concat(
        [periodicity(part, period).assign(side=side) for side, part in sides if len(part)], ignore_index=True
    )


def _period_share(values: Float[np.ndarray, " n"], period: int) -> dict[str, float | int]:
    n = len(values)
    empty: dict[str, float | int] = {"n_positions": n, "share": np.nan, "p_value": np.nan, "phase": -1}
    if n < 4 * period:
        return empty
    x = np.arange(n)
    residual: npt.NDArray[np.float64] = values - np.polyval(np.polyfit(x, values, 1), x)
    total = float((residual**2).sum())
    if total <= 1e-20 * max(float((values**2).sum()), 1e-300):
        return empty
    share = min(1.0, 2 * abs(np.exp(-2j * np.pi * x / period) @ residual) ** 2 / (n * total))
    phase = int(np.argmax([residual[p::period].mean() for p in range(period)]))
    return {"n_positions": n, "share": share, "p_value": (1 - share) ** ((n - 3) / 2), "phase": phase}  # pyright: ignore[reportReturnType]
