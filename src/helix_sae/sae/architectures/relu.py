"""ReLU with an L1 penalty (Bricken et al. 2023; Cunningham et al. 2023, arXiv:2309.08600).

``c = ReLU(W_enc (x - b_dec) + b_enc)``, ``x_hat = W_dec^T c + b_dec``,
loss ``|z - z_hat|^2 / d_in + l1_coefficient * sum_j c_j |d_j| / (0.01 sqrt(d_in))``: as ``z`` has mean norm
``sqrt(d_in)``, codes are counted in per cent of it. Decoder rows ``d_j`` are kept at unit norm, so the
weighting by their norm is 1.

The penalty also shrinks the codes. What is given out undoes that: each feature's codes are stretched by a
factor of its own, all factors together by least squares (as the relaxed lasso does, Meinshausen 2007).
Directions and active features stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import L1Config, ReluConfig
from helix_sae.sae.objective import (
    Forward,
    Objective,
    Params,
    StepContext,
    StepResult,
    fold,
    reconstruction_loss,
)
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.selection import active_above, density_above
from helix_sae.sae.sparse import ActiveCodes
from helix_sae.sae.step import dense_gradients, sparse_gradients, stacked_dense_gradients

SPARSE_BELOW = 0.15
"""Share of active codes below which the sparse gradient is the faster one."""

STACKED_TO = 512
"""Features up to which dense products of many dictionaries at once are the faster ones."""

_PULL = 1e-3
_LEAST_AND_MOST = (0.2, 5.0)
"""Factors beyond these say that a feature is next to unused, not how much it was shrunk."""


class ReluAutoencoder(SparseAutoencoder):
    """Inference side; see the module."""

    b_enc: Float[Tensor, " d_sae"]

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations."""
        return torch.relu(self.project(x) + self.b_enc)

    def encode_active(self, x: Float[Tensor, "n d_in"]) -> ActiveCodes:
        """Codes as active pairs."""
        threshold = torch.zeros_like(self.b_enc)
        return active_above(*self.encoder_inputs(x), self.b_enc.detach(), threshold)

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """SAELens: ``standard``."""
        return {"architecture": "standard"}, dict(self.named_parameters())


class ReluObjective(Objective[ReluConfig]):
    """Training side; see the module."""

    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Definition of the loss."""
        return relu_forward(self.config, params, z, context)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient, sparse or dense by the density of the batch."""
        return relu_gradients(self.config, params, z, context)

    @property
    def stackable(self) -> bool:
        """Small dictionaries are: dense products of many at once are then faster than active pairs."""
        return self.d_sae <= STACKED_TO

    @staticmethod
    def stacked_gradients(
        objectives: Sequence[Objective[Any]],
        params: Params,
        z: Float[Tensor, "m n d_in"],
        contexts: Sequence[StepContext],
    ) -> StepResult:
        """Loss and gradient of many small dictionaries."""
        pairs = zip(objectives, contexts, strict=True)
        prices = [objective.config.penalty * context.sparsity_weight for objective, context in pairs]
        return stacked_dense_gradients(params, z, torch.tensor(prices, device=z.device))

    def export(
        self, params: Params, scaling: InputScaling, sample: Float[Tensor, "n d_in"]
    ) -> SparseAutoencoder:
        """Undo the shrinkage and fold the scaling into the weights."""
        if self.config.stretch:
            params = stretched(params, sample)
        return ReluAutoencoder(self.config, fold(params, scaling))


def stretched(params: Params, sample: Float[Tensor, "n d_in"]) -> Params:
    """Undo the shrinkage of codes: the factors by which they reconstruct a sample best, in least squares.

    With unit rows ``d_j`` and centred codes, ``|z - sum_j g_j c_j d_j|^2`` is least where ``H g = h`` with
    ``H_jk = cov(c_j, c_k) d_j d_k`` and ``h_j = cov(c_j, z) d_j``. Factors are drawn a little towards 1, and
    so stay 1 for features that the sample does not tell about.
    """
    decoder = params["decoder"].double()
    codes = torch.relu((sample - params["b_dec"]) @ params["encoder"].T + params["b_enc"]).double()
    z = sample.double()
    mean_code, mean = codes.mean(0), z.mean(0)
    centred = codes - mean_code
    hessian = (centred.T @ centred / len(z)) * (decoder @ decoder.T)
    target = ((centred.T @ (z - mean) / len(z)) * decoder).sum(1)
    pull = _PULL * hessian.diagonal() + 1e-9
    factors = torch.linalg.solve(hessian + pull.diag(), target + pull).clamp(*_LEAST_AND_MOST)
    stretch = factors.float()
    return {
        "encoder": params["encoder"] * stretch[:, None],
        "b_enc": params["b_enc"] * stretch,
        "decoder": params["decoder"],
        "b_dec": params["b_dec"],
        "shift": (mean - (mean_code * factors) @ decoder).float() - params["b_dec"],
    }


def relu_forward(
    config: L1Config, params: Params, z: Float[Tensor, "n d_in"], context: StepContext
) -> Forward:
    """Reconstruction error plus L1, averaged over tokens."""
    codes = torch.relu((z - params["b_dec"]) @ params["encoder"].T + params["b_enc"])
    reconstruction = codes @ params["decoder"] + params["b_dec"]
    penalty = config.penalty * context.sparsity_weight
    loss = reconstruction_loss(z, reconstruction) + penalty * codes.sum(1).mean()
    return Forward(loss, codes, reconstruction)


def relu_gradients(
    config: L1Config, params: Params, z: Float[Tensor, "n d_in"], context: StepContext
) -> StepResult:
    """Gradient of :func:`relu_forward`."""
    penalty = config.penalty * context.sparsity_weight
    centred = z - params["b_dec"]
    if density_above(centred, params["encoder"], params["b_enc"]) > SPARSE_BELOW:
        return dense_gradients(params, z, centred, penalty, context.workers)
    threshold = torch.zeros_like(params["b_enc"])
    active = active_above(centred, params["encoder"], params["b_enc"], threshold, context.workers)
    return sparse_gradients(params, z, centred, active, penalty, context.workers)
