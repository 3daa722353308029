"""Whether other seeds learn the same features.

A feature *comes back* in another dictionary of the same site if that has a feature whose decoder row points
the same way (cosine at least 0.7) and whose codes on held-out tokens rise and fall with its own (Pearson
correlation at least 0.7). Directions alone are not enough: two features may point the same way and be active
on different tokens. The *stability* of a feature is the share of other seeds in which it comes back
(Gerasimov et al. 2026, arXiv:2606.12138; the cosine is that of Paulo and Belrose 2025, arXiv:2501.16615).
Seeds have to differ in their initialisation and in the order of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.special import betaincinv
from torch import Tensor

from helix_sae.errors import AnalysisError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.metrics import check_batch

COMES_BACK = 0.7
"""Cosine, and correlation of held-out codes, from which a feature counts as found again."""

FEWEST_OTHERS = 4
"""Other seeds below which no feature is certified, however often it comes back."""

CERTIFIED = 0.75
"""Stability from which a feature is certified: three of four other seeds."""

STABILITY_COLUMNS = (
    "n_others",
    "stability",
    "stability_low",
    "stability_high",
    "best_cosine",
    "correlation",
    "certified",
)
"""What is known of a feature's stability, wherever the feature stands: see :func:`feature_stability`."""

_CHUNK_TOKENS = 8_192
_LARGEST_BLOCK = 2**22
"""Pairs of features whose similarities are held at a time."""


@dataclass(frozen=True, eq=False)
class SeedFeatures:
    """The features of one seed: where they point, and what they do on held-out tokens.

    Attributes
    ----------
    directions : float (d_sae, d_in)
        Decoder rows.
    codes : csr_array float64 (n_tokens, d_sae)
        Codes of held-out tokens, the same tokens in the same order for every seed.
    """

    directions: Float[np.ndarray, "d_sae d_in"]
    codes: scipy.sparse.csr_array

    @cached_property
    def alive(self) -> Bool[np.ndarray, " d_sae"]:
        """Features active on at least one of the tokens."""
        return np.bincount(self.codes.indices, minlength=self.codes.shape[1]) > 0

    @cached_property
    def by_feature(self) -> scipy.sparse.csr_array:
        """The codes the other way round, a row a feature."""
        return scipy.sparse.csr_array(self.codes.T)

    @cached_property
    def means(self) -> Float[np.ndarray, " d_sae"]:
        """Mean code of each feature."""
        return np.asarray(self.codes.sum(axis=0)).ravel() / self.codes.shape[0]

    @cached_property
    def variances(self) -> Float[np.ndarray, " d_sae"]:
        """Variance of each feature's codes; infinite where it is not resolved.

        It is not below the rounding of the two numbers that it is the difference of.
        """
        squares = np.asarray(self.codes.multiply(self.codes).sum(axis=0)).ravel() / self.codes.shape[0]
        variances = squares - self.means**2
        return np.where(variances > 1e-12 * squares, variances, np.inf)


class Partners(NamedTuple):
    """For each feature of one dictionary, the feature of another that is most like it.

    The likeness of two features is the smaller of their cosine and their correlation.

    Attributes
    ----------
    feature : int (d_sae,)
        Number of the partner in the other dictionary.
    cosine, correlation : float (d_sae,)
        With the partner, each in -1 to 1; the correlation is 0 where one of the two is never active or
        constant.
    """

    feature: Int[np.ndarray, " d_sae"]
    cosine: Float[np.ndarray, " d_sae"]
    correlation: Float[np.ndarray, " d_sae"]

    @property
    def likeness(self) -> Float[np.ndarray, " d_sae"]:
        """The smaller of cosine and correlation; a feature comes back where it is at least 0.7."""
        return np.minimum(self.cosine, self.correlation)


def held_out_features(
    sae: SparseAutoencoder, x: Float[Tensor | np.ndarray, "n d_in"], site: str = "the data"
) -> SeedFeatures:
    """Encode held-out activations for the functions of this module.

    Raises
    ------
    DataError
        If the width is not the SAE's or a value is not finite.
    """
    rows = torch.as_tensor(x)
    parts: list[scipy.sparse.csr_array] = []
    for start in range(0, rows.shape[0], _CHUNK_TOKENS):
        chunk = check_batch(rows[start : start + _CHUNK_TOKENS], sae.d_in, site)
        active = sae.encode_active(chunk)
        arrays = (active.codes.double().numpy(), active.features.numpy(), active.offsets.numpy())
        parts.append(scipy.sparse.csr_array(arrays, shape=(chunk.shape[0], sae.d_sae)))
    codes = scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr")) if parts else None
    if codes is None:
        raise AnalysisError(f"There are no held-out activations of {site}; stability cannot be measured.")
    codes.eliminate_zeros()
    return SeedFeatures(sae.W_dec.detach().cpu().numpy().astype(np.float64), codes)


def best_partners(one: SeedFeatures, other: SeedFeatures) -> Partners:
    """Find each feature's partner in another dictionary."""
    return partners_both_ways(one, other)[0]


def partners_both_ways(one: SeedFeatures, other: SeedFeatures) -> tuple[Partners, Partners]:
    """Partners of the features of one dictionary in the other, and of the other's in the one.

    Some features at a time: products of sparse codes and of decoder rows.
    """
    n_other = other.directions.shape[0]
    block = max(1, _LARGEST_BLOCK // max(1, n_other))
    parts: list[tuple[np.ndarray, ...]] = []
    back = [np.zeros(n_other, dtype=np.int64), np.zeros(n_other), np.zeros(n_other)]
    best = np.full(n_other, -np.inf)
    for start in range(0, one.directions.shape[0], block):
        cosine, correlation = similarities(one, other, slice(start, start + block))
        likeness = np.minimum(cosine, correlation)
        row, column = np.arange(len(likeness)), np.arange(n_other)
        partner = likeness.argmax(axis=1)
        parts.append((partner, cosine[row, partner], correlation[row, partner]))
        leading = likeness.argmax(axis=0)
        better = likeness[leading, column] > best
        best[better] = likeness[leading, column][better]
        found = (start + leading, cosine[leading, column], correlation[leading, column])
        for kept, values in zip(back, found, strict=True):
            kept[better] = values[better]
    return Partners(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))), Partners(*back)


def similarities(
    one: SeedFeatures, other: SeedFeatures, rows: slice = slice(None)
) -> tuple[Float[np.ndarray, "rows d_other"], Float[np.ndarray, "rows d_other"]]:
    """Cosine of decoder rows and Pearson correlation of held-out codes, of some features with all of another seed.

    Raises
    ------
    AnalysisError
        If the two were measured on different numbers of tokens.
    """
    n = one.codes.shape[0]
    if n != other.codes.shape[0]:
        raise AnalysisError(
            f"Codes of {n} and of {other.codes.shape[0]} held-out tokens cannot be compared; encode the same"
            " tokens."
        )
    cosine = unit_rows(one.directions[rows]) @ unit_rows(other.directions).T
    covariance = (one.by_feature[rows] @ other.codes).toarray() / n - np.outer(one.means[rows], other.means)
    return cosine, covariance / np.sqrt(np.outer(one.variances[rows], other.variances))


def feature_stability(
    reference: SeedFeatures, others: Mapping[str, SeedFeatures], site: str = "the data"
) -> pd.DataFrame:
    """Count, for each feature of one dictionary, the other seeds in which it comes back.

    Parameters
    ----------
    reference : SeedFeatures
        The dictionary whose features are named.
    others : mapping of str to SeedFeatures
        The same configuration from other seeds, by a name for messages.
    site : str
        Named in messages.

    Returns
    -------
    DataFrame
        A row a feature. ``alive`` (active on a held-out token), ``n_others``, ``stability`` (share of the
        others in which the feature comes back, 0 to 1) with its 95 % interval ``stability_low`` to
        ``stability_high`` (:func:`exact_interval`), ``best_cosine`` and ``correlation`` (with the partner in
        each other seed, the mean), ``certified`` ("yes" or "no"; "unknown" with fewer than four others).
        Without others :func:`unknown_stability`.

    Raises
    ------
    AnalysisError
        If a seed has collapsed (no feature is ever active), or is the reference again.
    """
    check_seeds(reference, others, site)
    return stability_of([best_partners(reference, other) for other in others.values()], reference.alive)


def stability_of(found: Sequence[Partners], alive: Bool[np.ndarray, " d_sae"]) -> pd.DataFrame:
    """The table of :func:`feature_stability` from the partners in each other seed."""
    if not found:
        return unknown_stability(alive)
    n = len(found)
    back = np.sum([partners.likeness >= COMES_BACK for partners in found], axis=0)
    low, high = exact_interval(back, n)
    enough = n >= FEWEST_OTHERS
    certified = np.where(back / n >= CERTIFIED, "yes", "no") if enough else np.full(back.shape, "unknown")
    columns = {
        "feature": np.arange(len(back)),
        "alive": alive,
        "n_others": n,
        "stability": back / n,
        "stability_low": low,
        "stability_high": high,
        "best_cosine": np.mean([partners.cosine for partners in found], axis=0),
        "correlation": np.mean([partners.correlation for partners in found], axis=0),
        "certified": certified.astype(object),
    }
    return pd.DataFrame(columns)


def unknown_stability(alive: Bool[np.ndarray, " d_sae"]) -> pd.DataFrame:
    """The table of a dictionary that no other seed is there for: numbers missing, ``certified`` "unknown"."""
    n = len(alive)
    missing = dict.fromkeys(STABILITY_COLUMNS[1:-1], np.full(n, np.nan))
    columns = {"feature": np.arange(n), "alive": alive, "n_others": np.zeros(n, dtype=np.int64), **missing}
    return pd.DataFrame({**columns, "certified": np.full(n, "unknown", dtype=object)})


def join_certified(table: pd.DataFrame, stability: pd.DataFrame) -> pd.DataFrame:
    """Put ``stability`` and ``certified`` beside the features of another table; "unknown" where nothing is known of one.

    Parameters
    ----------
    table : DataFrame
        ``site, feature`` and whatever was found; rows that are no feature (error nodes) get "not a feature".
    stability : DataFrame
        ``site, feature, stability, certified``.
    """
    key = [stability["site"].astype(str), stability["feature"].astype(str)]
    known = stability.set_index(pd.MultiIndex.from_arrays(key))[["stability", "certified"]]
    wanted = pd.MultiIndex.from_arrays([table["site"].astype(str), table["feature"].astype(str)])
    found = known.reindex(wanted)
    is_feature = table["feature"].astype(str).str.fullmatch(r"\d+").to_numpy(dtype=bool)
    certified = found["certified"].fillna("unknown").to_numpy(dtype=object)
    return table.assign(
        stability=found["stability"].to_numpy(dtype=float),
        certified=np.where(is_feature, certified, "not a feature"),
    )


def exact_interval(
    successes: Int[np.ndarray, " n"], trials: int, level: float = 0.95
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Interval of Clopper and Pearson (1934) for a binomial share.

    Given the reference, the other seeds are independent trials, so the count is binomial. With a handful of
    them the approximate intervals (Wilson, Jeffreys) cover less than they say for some shares; this one never
    does. It is wide: four of four give [0.40, 1].
    """
    k = np.asarray(successes, dtype=float)
    tail = (1 - level) / 2
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), trials - k + 1, tail), 0.0)
    high = np.where(k < trials, betaincinv(k + 1, np.maximum(trials - k, 1), 1 - tail), 1.0)
    return low, high


def stability_summary(
    reference: SeedFeatures,
    others: Mapping[str, SeedFeatures],
    untrained: Sequence[SeedFeatures] = (),
    site: str = "the data",
    table: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """What one site's seeds have in common, in one row.

    Parameters
    ----------
    reference, others, site
        As for :func:`feature_stability`.
    untrained : sequence of SeedFeatures
        Dictionaries of the same size at their random start: what chance gives.
    table : DataFrame, optional
        Of :func:`feature_stability`, where it is there already.

    Returns
    -------
    dict
        ``site``, ``n_seeds``, ``n_tokens``, ``n_features`` (living ones of the reference), ``n_certified``,
        ``share_certified`` and ``share_back`` (mean stability) of these, ``share_cosine`` (the same by
        directions alone), ``pw_mcc`` (mean matched cosine over all pairs of seeds, living features) and
        ``pw_mcc_lowest`` (of a pair), ``chance_cosine`` (matched cosine of random directions),
        ``chance_back`` (share of the features that come back in an untrained dictionary). NaN where there is
        nothing to measure it on.
    """
    known = feature_stability(reference, others, site) if table is None else table
    living = known[known["alive"]]
    certain = int((living["certified"] == "yes").sum())
    first, *rest = (unit_rows(seed.directions[seed.alive]) for seed in (reference, *others.values()))
    by_cosine = [(first @ rows.T).max(axis=1) >= COMES_BACK for rows in rest]
    by_chance = [
        best_partners(reference, start).likeness[reference.alive] >= COMES_BACK for start in untrained
    ]
    return {
        "site": site,
        "n_seeds": 1 + len(others),
        "n_tokens": reference.codes.shape[0],
        "n_features": len(living),
        "n_certified": certain,
        "share_certified": certain / len(living) if len(others) >= FEWEST_OTHERS else float("nan"),
        "share_back": float(living["stability"].mean()),
        "share_cosine": float(np.mean(by_cosine)) if by_cosine else float("nan"),
        **match_of_seeds([seed.directions[seed.alive] for seed in (reference, *others.values())]),
        "chance_cosine": random_match(len(living), reference.directions.shape[1]),
        "chance_back": float(np.mean(by_chance)) if by_chance else float("nan"),
    }


def match_of_seeds(dictionaries: Sequence[Float[np.ndarray, "d_sae d_in"]]) -> dict[str, float]:
    """``pw_mcc`` and ``pw_mcc_lowest``: the mean matched cosine of directions, over all pairs of dictionaries.

    NaN where there is one dictionary, or one of them has no direction.
    """
    empty = any(len(rows) == 0 for rows in dictionaries)
    pairs = [] if empty else [float(matched_cosines(a, b).mean()) for a, b in combinations(dictionaries, 2)]
    return {
        "pw_mcc": float(np.mean(pairs)) if pairs else float("nan"),
        "pw_mcc_lowest": min(pairs, default=float("nan")),
    }


def unit_rows(rows: Float[np.ndarray, "n d_in"]) -> Float[np.ndarray, "n d_in"]:
    """Rows divided by their length, in float64; rows of zeros stay."""
    wide = np.asarray(rows, dtype=np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def matched_cosines(
    a: Float[np.ndarray, "n_a d_in"], b: Float[np.ndarray, "n_b d_in"]
) -> Float[np.ndarray, " n"]:
    """Cosines of decoder rows matched one to one so that their sum is largest; ``n`` is the smaller number of rows."""
    cosine = unit_rows(a) @ unit_rows(b).T
    first, second = linear_sum_assignment(-cosine)
    return cosine[first, second]


@cache
def random_match(n: int, d_in: int, seed: int = 0) -> float:
    """Mean matched cosine of two random dictionaries of that size: what chance gives."""
    rng = np.random.default_rng(seed)
    return float(matched_cosines(rng.normal(size=(n, d_in)), rng.normal(size=(n, d_in))).mean())


def check_seeds(reference: SeedFeatures, others: Mapping[str, SeedFeatures], site: str) -> None:
    """Raise where a comparison would mean nothing."""
    for name, seed in {"the reference": reference, **others}.items():
        if not np.isfinite(seed.directions).all() or not seed.alive.any():
            raise AnalysisError(
                f"At {site}, {name} has collapsed: none of its {len(seed.directions)} features is active on"
                f" the {seed.codes.shape[0]} held-out tokens. Lower the learning rate or the price of"
                " activity, or leave that seed out."
            )
    for name, seed in others.items():
        if np.array_equal(seed.directions, reference.directions):
            raise AnalysisError(
                f"At {site}, {name} is the reference again, to the bit: stability needs seeds that differ in"
                " their initialisation and in the order of the data."
            )
