"""Dictionaries to hold a trained autoencoder against: the same interface, so the same machinery and the same budget.

Whether features of an autoencoder explain a prediction better than the neurons they were learned on is an
open question (MIB, arXiv:2504.13151, found that they do not): it is to be measured, not assumed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from helix_sae.causal.terms import Dictionary
from helix_sae.errors import ConfigurationError
from helix_sae.sae import SparseAutoencoder, estimate_scaling, random_autoencoder

BaselineName = Literal["neurons", "pca", "pca_rectified", "ica", "random_directions", "random_sae"]

BASELINES: tuple[BaselineName, ...] = (
    "neurons",
    "pca",
    "pca_rectified",
    "ica",
    "random_directions",
    "random_sae",
)

_ICA_ROWS = 8_000
_ICA_ITERATIONS = 200
_RANK_TOLERANCE = 1e-6


class LinearDictionary:
    """Codes are linear in the activation, or their positive parts.

    Parameters
    ----------
    encoder : float (width, features)
    decoder : float (features, width)
    mean : float (width,)
        Subtracted before encoding and added after decoding.
    rectify : bool
        Whether codes are cut at zero.
    """

    def __init__(
        self,
        encoder: Float[Tensor, "width features"],
        decoder: Float[Tensor, "features width"],
        mean: Float[Tensor, " width"],
        *,
        rectify: bool = False,
    ) -> None:
        self.encoder, self.W_dec, self.mean, self.rectify = encoder, decoder, mean, rectify

    def encode(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch features"]:
        """Codes of raw activations."""
        codes = (x - self.mean) @ self.encoder
        return torch.relu(codes) if self.rectify else codes

    def decode(self, codes: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch width"]:
        """Raw activations of codes."""
        return codes @ self.W_dec + self.mean


def fit_baselines(
    activations: Mapping[str, Float[np.ndarray, "n width"]],
    autoencoders: Mapping[str, SparseAutoencoder],
    *,
    names: Sequence[BaselineName] = BASELINES,
    seed: int = 0,
) -> dict[str, dict[str, Dictionary]]:
    """Baseline dictionaries of every site.

    Parameters
    ----------
    activations : mapping of site to float (n, width)
        What the principal and independent components are fitted on; tokens of sequences that no pair uses, if
        there are enough.
    autoencoders : mapping of site to SparseAutoencoder
        The trained ones; they give the shape of ``random_sae``, and the device.
    names : sequence of str
        Of :data:`BASELINES`.
    seed : int

    Returns
    -------
    dict of name to dict of site to Dictionary

    Raises
    ------
    ConfigurationError
        If a name is unknown, or a site has no activations.
    """
    unknown = [name for name in names if name not in BASELINES]
    missing = [site for site in autoencoders if site not in activations]
    if unknown or missing:
        raise ConfigurationError(
            f"Unknown baselines {unknown}; there are {', '.join(BASELINES)}."
            if unknown
            else f"No activations for site {', '.join(missing)} to fit baselines on."
        )
    fitted: dict[str, dict[str, Dictionary]] = {name: {} for name in names}
    for index, (site, sae) in enumerate(autoencoders.items()):
        x = np.asarray(activations[site], dtype=np.float64)
        for name in names:
            fitted[name][site] = _fit(name, x, site, sae, seed + index)
    return fitted


def _fit(
    name: BaselineName, x: Float[np.ndarray, "n width"], site: str, sae: SparseAutoencoder, seed: int
) -> Dictionary:
    width, mean = x.shape[1], x.mean(axis=0)
    if name == "neurons":
        return _dictionary(sae, np.eye(width), np.eye(width), np.zeros(width))
    if name == "random_directions":
        rows = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
        return _dictionary(sae, rows.T, rows, mean)
    if name == "random_sae":
        scaling = estimate_scaling(torch.as_tensor(x, dtype=torch.float32), site)
        return random_autoencoder(sae.config.resolve(width, site), scaling, seed).to(sae.W_dec.device)
    rows = _principal_components(x - mean)
    if name == "pca":
        return _dictionary(sae, rows.T, rows, mean)
    if name == "pca_rectified":
        both = np.concatenate([rows, -rows])
        return _dictionary(sae, both.T, both, mean, rectify=True)
    unmixing, mixing = _independent_components(x - mean, rows, seed)
    return _dictionary(sae, unmixing.T, mixing.T, mean)


def _principal_components(centred: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "rank width"]:
    """Orthonormal rows, by falling variance; directions without variance are left out."""
    variance, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    alive = variance > _RANK_TOLERANCE**2 * max(float(variance[-1]), np.finfo(np.float64).tiny)
    return vectors[:, alive].T[::-1].copy()


def _independent_components(
    centred: Float[np.ndarray, "n width"], principal: Float[np.ndarray, "rank width"], seed: int
) -> tuple[Float[np.ndarray, "rank width"], Float[np.ndarray, "width rank"]]:
    """FastICA in the space of the principal components, on at most 8,000 rows."""
    rng = np.random.default_rng(seed)
    rows = (
        centred if len(centred) <= _ICA_ROWS else centred[rng.choice(len(centred), _ICA_ROWS, replace=False)]
    )
    ica: Any = FastICA(whiten="unit-variance", random_state=seed, max_iter=_ICA_ITERATIONS, tol=1e-3)
    with warnings.catch_warnings():
        # Components that have not quite settled are a baseline all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(rows @ principal.T)
    return ica.components_ @ principal, principal.T @ ica.mixing_


def _dictionary(
    like: SparseAutoencoder,
    encoder: Float[np.ndarray, "width features"],
    decoder: Float[np.ndarray, "features width"],
    mean: Float[np.ndarray, " width"],
    *,
    rectify: bool = False,
) -> LinearDictionary:
    def tensor(a: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(a), dtype=like.W_dec.dtype, device=like.W_dec.device)

    return LinearDictionary(tensor(encoder), tensor(decoder), tensor(mean), rectify=rectify)
