"""Activations whose features are known: a truth that the stability of learned features is held against.

A token's activation is ``x = mean + sum_j strength_j direction_j + background + noise``. The features are the
sort that make dictionary learning hard, as in SynthSAEBench of SAELens and the synthetic model of Gerasimov
et al. (2026, arXiv:2606.12138): they are seldom or often active by Zipf's law, occur together (a Gaussian
copula with a few common factors), some only where their parent is active and never beside their siblings, and
below them lies a dense background of low rank, in which no direction is a feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.special import ndtri

from helix_sae.errors import ConfigurationError
from helix_sae.sae.stability import COMES_BACK, SeedFeatures, best_partners, unit_rows

_OFTENEST = 0.25
"""Largest share of tokens on which a feature is active."""

_N_FACTORS = 4
_TIE = 1e-3
"""Weight of the likeness beside the stability, less than one seed's share of it: it decides ties alone."""

_CHILD = 0.4
"""Chance of each of two siblings where their parent is active."""


@dataclass(frozen=True)
class SyntheticConfig:
    """What the known features are like.

    Attributes
    ----------
    d_in : int
        Width of the activations.
    n_features : int
        Known features, parents and children among them.
    active : float
        Active features a token, on average, before children are counted.
    zipf : float
        Exponent of the law by which frequencies fall with rank; 0 makes all equally frequent.
    correlation : float
        Share of a feature's latent variable that it has in common with others, 0 to below 1.
    share_children : float
        Share of the features that are children, two of a parent; 0 to 2/3.
    background_rank : int
        Dimensions of the dense background; 0 leaves it out.
    background_share : float
        Its share of the whole variance, 0 to below 1.
    noise : float
        Standard deviation of the noise in each dimension.
    """

    d_in: int = 48
    n_features: int = 64
    active: float = 3.0
    zipf: float = 0.7
    correlation: float = 0.0
    share_children: float = 0.0
    background_rank: int = 0
    background_share: float = 0.2
    noise: float = 0.02

    def __post_init__(self) -> None:
        sizes = self.d_in >= 1 and self.n_features >= 3 and 0 <= self.background_rank <= self.d_in
        shares = (
            0 <= self.correlation < 1,
            0 <= self.share_children <= 2 / 3,
            0 <= self.background_share < 1,
        )
        if not sizes or not all(shares) or not 0 < self.active < _OFTENEST * self.n_features:
            raise ConfigurationError(
                f"{self} cannot be drawn from: 0 < active < {_OFTENEST} n_features, correlation and"
                " background_share from 0 to below 1, share_children from 0 to 2/3, background_rank at most"
                " d_in."
            )


class Draw(NamedTuple):
    """Tokens with their known codes.

    Attributes
    ----------
    activations : float32 (n, d_in)
        What an autoencoder is given.
    known : SeedFeatures
        The known features: their directions, and the strength of each at every token.
    absorbed : SeedFeatures
        What a sparse dictionary may put in their place where a child is never active without its parent: for
        each child the two together (one active feature in place of two), for each parent the rest of its
        tokens. Empty without children.
    """

    activations: Float[np.ndarray, "n d_in"]
    known: SeedFeatures
    absorbed: SeedFeatures


class KnownFeatures:
    """Features drawn once from a configuration and a seed; :meth:`draw` gives tokens of them.

    Attributes
    ----------
    directions : float (n_features, d_in)
        Unit rows.
    parents : int (n_features,)
        Number of each feature's parent, -1 where it has none; children stand last.
    frequencies : float (n_features,)
        Share of tokens on which each is active.
    background : float (rank, d_in)
        Basis of the dense background, scaled to its standard deviation.

    Examples
    --------
    >>> known = KnownFeatures(SyntheticConfig(d_in=8, n_features=12, active=2.0), seed=0)
    >>> known.draw(100, seed=1).activations.shape
    (100, 8)
    """

    def __init__(self, config: SyntheticConfig, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.config = config
        self.directions = unit_rows(rng.normal(size=(config.n_features, config.d_in)))
        self.mean = rng.normal(size=config.d_in)
        n_parents = round(config.share_children * config.n_features / 2)
        n_roots = config.n_features - 2 * n_parents
        self.parents: Int[np.ndarray, " n_features"] = np.full(config.n_features, -1)
        # Any root may be a parent, so that parents are frequent and rare.
        self.parents[n_roots:] = np.repeat(rng.permutation(n_roots)[:n_parents], 2)
        roots = zipf_frequencies(n_roots, config.active, config.zipf)
        self.frequencies = np.concatenate([roots, _CHILD * roots[self.parents[n_roots:]]])
        # Of either sign, so that features also shut each other out.
        factors = unit_rows(rng.normal(size=(n_roots, _N_FACTORS)))
        self.loadings = np.sqrt(config.correlation) * factors
        basis = np.linalg.qr(rng.normal(size=(config.d_in, config.d_in)))[0][: config.background_rank]
        sparse = float((self.frequencies * 1.06).sum())
        share, rank = config.background_share, max(1, config.background_rank)
        self.background = basis * np.sqrt(sparse * share / (1 - share) / rank)

    def draw(self, n: int, seed: int) -> Draw:
        """Draw ``n`` tokens; other seeds give other tokens of the same features."""
        rng = np.random.default_rng([seed, 1])
        config, n_roots = self.config, len(self.loadings)
        own = np.sqrt(1 - config.correlation) * rng.normal(size=(n, n_roots))
        latent = rng.normal(size=(n, _N_FACTORS)) @ self.loadings.T + own
        active = np.zeros((n, config.n_features), dtype=bool)
        active[:, :n_roots] = latent < ndtri(self.frequencies[:n_roots])
        which = rng.random((n, config.n_features))
        for first in range(n_roots, config.n_features, 2):
            at_parent = active[:, self.parents[first]]
            active[:, first] = at_parent & (which[:, first] < _CHILD)
            active[:, first + 1] = at_parent & (which[:, first] >= 1 - _CHILD)
        strength = np.maximum(1 + 0.25 * rng.normal(size=active.shape), 0.1)
        codes = active * strength
        x = self.mean + codes @ self.directions + rng.normal(size=(n, len(self.background))) @ self.background
        x += config.noise * rng.normal(size=x.shape)
        known = SeedFeatures(self.directions, scipy.sparse.csr_array(codes))
        return Draw(x.astype(np.float32), known, self._absorbed(codes))

    def _absorbed(self, codes: Float[np.ndarray, "n n_features"]) -> SeedFeatures:
        children = np.flatnonzero(self.parents >= 0)
        above = self.parents[children]
        parents = np.unique(above)
        together = codes[:, children] + codes[:, above] * (codes[:, children] > 0)
        childless = (
            np.stack([~(codes[:, children[above == p]] > 0).any(axis=1) for p in parents], axis=1)
            if len(parents)
            else codes[:, :0]
        )
        directions = [self.directions[children] + self.directions[above], self.directions[parents]]
        events = np.concatenate([together, codes[:, parents] * childless], axis=1)
        return SeedFeatures(np.concatenate(directions), scipy.sparse.csr_array(events))


def zipf_frequencies(n: int, total: float, exponent: float) -> Float[np.ndarray, " n"]:
    """``min(0.25, c / rank**exponent)`` with ``c`` such that they add up to ``total``."""
    law = np.arange(1, n + 1, dtype=float) ** -exponent
    capped = _OFTENEST * n
    if total >= capped:
        raise ConfigurationError(
            f"{n} features without a parent cannot make {total} active a token: at most {capped:.1f}; lower"
            " active."
        )
    scale = brentq(lambda c: np.minimum(_OFTENEST, c * law).sum() - total, 0.0, _OFTENEST / law[-1])
    return np.minimum(_OFTENEST, scale * law)


def judge_stability(table: pd.DataFrame, learned: SeedFeatures, draw: Draw) -> dict[str, float]:
    """Hold the stability of learned features against the known ones.

    A learned feature is *true* where a known feature is like it (:class:`~helix_sae.sae.stability.Partners`:
    cosine and correlation of held-out codes at least 0.7), else *absorbed* where a child together with its
    parent is, or a parent without its children, else an *artefact*.

    Parameters
    ----------
    table : DataFrame
        From :func:`~helix_sae.sae.stability.feature_stability` for ``learned``.
    learned : SeedFeatures
        Their codes of the drawn tokens.
    draw : Draw
        The tokens that the features were compared on.

    Returns
    -------
    dict
        Of the living features: ``n_learned``, ``n_true``, ``n_absorbed``, ``n_artefacts``, ``n_certified``;
        ``auc`` of the stability, true against all others (NaN if there is only one kind), and
        ``auc_with_likeness`` where features of one stability are told apart by how much their partners in the
        other seeds are like them; ``precision``, the
        share of certified ones that are true; ``recall``, the share of known features, active on these
        tokens, that a certified one is like, and ``recall_all`` that any learned one is like, which no
        certificate can pass. ``auc_or_absorbed`` and ``precision_or_absorbed`` are the same where absorbed
        ones count as true: every seed absorbs alike, so that no number of seeds tells them apart.
    """
    alive = table["alive"].to_numpy(dtype=bool)
    certified = (table["certified"] == "yes").to_numpy() & alive
    true = best_partners(learned, draw.known).likeness >= COMES_BACK
    absorbed = np.zeros_like(true)
    if len(draw.absorbed.directions):
        absorbed = ~true & (best_partners(learned, draw.absorbed).likeness >= COMES_BACK)
    stability = table["stability"].to_numpy(dtype=float)
    likeness = table[["best_cosine", "correlation"]].min(axis=1).to_numpy(dtype=float)
    return {
        "n_learned": float(alive.sum()),
        "n_true": float((true & alive).sum()),
        "n_absorbed": float((absorbed & alive).sum()),
        "n_artefacts": float((~true & ~absorbed & alive).sum()),
        "n_certified": float(certified.sum()),
        "auc": _auc(true[alive], stability[alive]),
        "auc_with_likeness": _auc(true[alive], (stability + _TIE * likeness)[alive]),
        "auc_or_absorbed": _auc((true | absorbed)[alive], stability[alive]),
        "precision": float(true[certified].mean()) if certified.any() else float("nan"),
        "precision_or_absorbed": float((true | absorbed)[certified].mean())
        if certified.any()
        else float("nan"),
        "recall": recovered(draw.known, learned, certified),
        "recall_all": recovered(draw.known, learned, alive),
    }


def recovered(truth: SeedFeatures, learned: SeedFeatures, kept: Bool[np.ndarray, " d_sae"]) -> float:
    """Share of the known features, active on the tokens at hand, that one of the ``kept`` learned ones is like."""
    if not kept.any():
        return 0.0
    chosen = SeedFeatures(learned.directions[kept], learned.codes.tocsc()[:, kept].tocsr())
    return float((best_partners(truth, chosen).likeness >= COMES_BACK)[truth.alive].mean())


def _auc(true: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - slow to import, and `kedro` imports this module

    return float(roc_auc_score(true, score)) if 0 < true.sum() < len(true) else float("nan")
