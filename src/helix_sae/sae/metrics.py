"""Held-out measures of an SAE, accumulated in float64 while activations stream by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.errors import DataError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.sparse import decode_active

DENSITY_EDGES = np.linspace(-7.0, 0.0, 29)
"""Edges of the histogram of log10 feature density."""


@dataclass(frozen=True)
class SaeEvaluation:
    """Held-out measures of one SAE.

    Attributes
    ----------
    summary : dict of str to float
        ``n_tokens``, ``l0`` (active features a token), ``l1`` (summed codes a token), ``mse`` (mean over
        tokens and dimensions), ``explained_variance`` (1 - squared error / squared distance from the held-out
        mean), ``cosine`` (of activation and reconstruction, mean), ``dead_share`` (features never active),
        ``dense_share`` (active on more than a tenth of the tokens), ``decoder_similarity`` (mean over
        features of the largest |cosine| with another decoder row).
    features : DataFrame
        One row a feature: ``density`` (share of tokens), ``max_activation``, ``mean_when_active``, ``mean``,
        ``alive``, ``decoder_similarity``.
    density_histogram : DataFrame
        ``low``, ``high`` (log10 density) and ``n_features``; features never active are counted in
        ``dead_share`` only.
    """

    summary: dict[str, float]
    features: pd.DataFrame
    density_histogram: pd.DataFrame


class Evaluator:
    """Accumulates the measures of one SAE over batches of raw activations."""

    def __init__(self, sae: SparseAutoencoder, site: str = "the data") -> None:
        self.sae = sae
        self.site = site
        d_in, d_sae = sae.d_in, sae.d_sae
        self.n_tokens = 0
        self.n_active = 0
        self.squared_error = 0.0
        self.cosine = 0.0
        # Distances are taken from b_dec first, so that the variance is not a difference of two large numbers.
        self.shifted_sum = torch.zeros(d_in, dtype=torch.float64)
        self.shifted_square = 0.0
        self.counts = torch.zeros(d_sae, dtype=torch.int64)
        self.sums = torch.zeros(d_sae, dtype=torch.float64)
        self.largest = torch.zeros(d_sae, dtype=torch.float32)

    def update(self, x: Float[Tensor, "n d_in"]) -> None:
        """Count one batch in.

        Raises
        ------
        DataError
            If the width is not the SAE's or a value is not finite.
        """
        x = check_batch(x, self.sae.d_in, self.site)
        active = self.sae.encode_active(x)
        reconstruction = decode_active(active, self.sae.W_dec.detach()).add_(self.sae.b_dec.detach())
        live = active.codes > 0
        values, features = active.codes[live], active.features[live]
        shifted = (x - self.sae.b_dec.detach()).double()
        self.n_tokens += x.shape[0]
        self.n_active += int(values.numel())
        self.squared_error += float((x - reconstruction).double().square().sum())
        self.shifted_sum += shifted.sum(0)
        self.shifted_square += float(shifted.square().sum())
        self.cosine += float(torch.cosine_similarity(x, reconstruction, dim=1).double().sum())
        self.counts += torch.bincount(features, minlength=self.sae.d_sae)
        self.sums += torch.bincount(features, weights=values.double(), minlength=self.sae.d_sae)
        self.largest.scatter_reduce_(0, features, values, "amax")

    def result(self) -> SaeEvaluation:
        """The measures so far.

        Raises
        ------
        DataError
            If nothing was counted.
        """
        if self.n_tokens == 0:
            raise DataError(f"There are no held-out activations of {self.site} to evaluate its SAE on.")
        n = self.n_tokens
        features = self._features()
        variance = self.shifted_square - float(self.shifted_sum.square().sum()) / n
        density = features["density"].to_numpy()
        summary = {
            "n_tokens": float(n),
            "l0": self.n_active / n,
            "l1": float(self.sums.sum()) / n,
            "mse": self.squared_error / (n * self.sae.d_in),
            "explained_variance": 1.0 - self.squared_error / variance if variance > 0 else float("nan"),
            "cosine": self.cosine / n,
            "dead_share": float((density == 0).mean()),
            "dense_share": float((density > 0.1).mean()),
            "decoder_similarity": float(features["decoder_similarity"].mean()),
        }
        alive = density[density > 0]
        counts, edges = np.histogram(np.log10(alive), bins=DENSITY_EDGES)
        histogram = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n_features": counts})
        return SaeEvaluation(summary, features, histogram)

    def _features(self) -> pd.DataFrame:
        counts = self.counts.numpy()
        sums = self.sums.numpy()
        return pd.DataFrame(
            {
                "feature": np.arange(counts.size),
                "density": counts / self.n_tokens,
                "max_activation": self.largest.double().numpy(),
                "mean": sums / self.n_tokens,
                "mean_when_active": np.divide(sums, counts, out=np.zeros(counts.size), where=counts > 0),
                "alive": counts > 0,
                "decoder_similarity": nearest_decoder_cosine(self.sae.W_dec.detach()).double().numpy(),
            }
        )


def evaluate_sae(
    sae: SparseAutoencoder, batches: Iterable[Float[Tensor, "n d_in"]], site: str = "the data"
) -> SaeEvaluation:
    """Measure an SAE on batches of raw activations that it was not trained on.

    Raises
    ------
    DataError
        If there is no token, a width differs from the SAE's, or a value is not finite.
    """
    evaluator = Evaluator(sae, site)
    for batch in batches:
        evaluator.update(batch)
    return evaluator.result()


def nearest_decoder_cosine(
    decoder: Float[Tensor, "d_sae d_in"], block: int = 2048
) -> Float[Tensor, " d_sae"]:
    """Largest |cosine| of each decoder row with another one."""
    unit = decoder / decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
    nearest = torch.zeros(unit.shape[0])
    for start in range(0, unit.shape[0], block):
        cosine = (unit[start : start + block] @ unit.T).abs_()
        rows = torch.arange(cosine.shape[0])
        cosine[rows, rows + start] = 0.0
        nearest[start : start + block] = cosine.amax(1)
    return nearest


def as_batch(x: Float[Tensor, "n d_in"], d_in: int, site: str) -> Float[Tensor, "n d_in"]:
    """Return activations as a float32 Tensor of the right width, or say what is wrong with them."""
    x = torch.as_tensor(x).to(torch.float32)
    if x.ndim != 2 or x.shape[1] != d_in:
        raise DataError(
            f"The activations of {site} have shape {tuple(x.shape)} but (tokens, {d_in}) is needed; "
            "use the SAE that was trained on this site."
        )
    return x


def check_batch(x: Float[Tensor, "n d_in"], d_in: int, site: str) -> Float[Tensor, "n d_in"]:
    """Do the same and look for values that are not finite."""
    x = as_batch(x, d_in, site)
    # A sum is finite only if all of it is; looking at each value takes ten times as long.
    if not bool(torch.isfinite(x.sum())) and not bool(torch.isfinite(x).all()):
        raise DataError(f"The activations of {site} are not finite; extract them again.")
    return x
