"""How well a trained SAE fits activations that it was not trained on, beside those that it was."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder

ERROR_999 = "error_999"
"""Key of ``SparseAutoencoder.origin``: the squared error below which all but one in a thousand held-out tokens of its own
corpus lie, by :func:`token_errors`."""


def token_errors(
    sae: SparseAutoencoder, batches: Iterable[Float[Tensor, "n d_in"] | np.ndarray]
) -> Float[np.ndarray, " n_tokens"]:
    """Squared error of the reconstruction of each token, averaged over dimensions, in the unit of the activations."""
    errors: list[np.ndarray] = []
    with torch.no_grad():
        for batch in batches:
            x = torch.as_tensor(batch).to(torch.float32)
            errors.append((sae(x) - x).double().square().mean(1).numpy())
    return np.concatenate(errors) if errors else np.empty(0)


def error_999(sae: SparseAutoencoder, batches: Iterable[Float[Tensor, "n d_in"] | np.ndarray]) -> float:
    """The error that one token in a thousand exceeds."""
    return float(np.quantile(token_errors(sae, batches), 0.999))


def share_outside(sae: SparseAutoencoder, batches: Iterable[Float[Tensor, "n d_in"] | np.ndarray]) -> float:
    """Share of tokens that are reconstructed worse than all but one in a thousand of those that the SAE was made for.

    About 0.001 where the activations are like those; NaN where the SAE does not say what it was made for.
    """
    limit = sae.origin.get(ERROR_999)
    if limit is None:
        return float("nan")
    errors = token_errors(sae, batches)
    return float((errors > float(limit)).mean()) if errors.size else float("nan")
