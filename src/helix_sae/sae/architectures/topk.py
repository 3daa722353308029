"""TopK: the k largest pre-activations of each token (Gao et al. 2024, arXiv:2406.04093).

``c = TopK(ReLU(W_enc (x - b_dec) + b_enc))``, ``x_hat = W_dec^T c + b_dec``,
loss ``|z - z_hat|^2 / d_in + aux_coefficient |e - e_hat|^2 / d_in`` where ``e_hat`` reconstructs the error
``e`` from the best ``aux_k`` dead features (AuxK).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.auxiliary import add_auxiliary_gradient, auxiliary_loss
from helix_sae.sae.config import TopKConfig
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
from helix_sae.sae.selection import top_k_active
from helix_sae.sae.sparse import ActiveCodes, to_dense
from helix_sae.sae.step import sparse_gradients


class TopKAutoencoder(SparseAutoencoder):
    """Inference side; see the module."""

    b_enc: Float[Tensor, " d_sae"]
    config: TopKConfig

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations: ``k`` at most for each token."""
        if x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled():
            active = self.encode_active(x.reshape(-1, x.shape[-1]))  # in three quarters of the time
            return to_dense(active, self.d_sae).view(*x.shape[:-1], self.d_sae)
        return keep_top_k(self.project(x) + self.b_enc, self.config.k)

    def encode_active(self, x: Float[Tensor, "n d_in"]) -> ActiveCodes:
        """Codes as active pairs; zeros among the ``k`` are kept."""
        return top_k_active(*self.encoder_inputs(x), self.b_enc.detach(), self.config.k)

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """SAELens: ``topk``."""
        keys = {"architecture": "topk", "k": self.config.k, "rescale_acts_by_decoder_norm": False}
        return keys, dict(self.named_parameters())


class TopKObjective(Objective[TopKConfig]):
    """Training side; see the module."""

    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Definition of the loss."""
        pre = (z - params["b_dec"]) @ params["encoder"].T + params["b_enc"]
        codes = keep_top_k(pre, self.config.k)
        reconstruction = codes @ params["decoder"] + params["b_dec"]
        loss = reconstruction_loss(z, reconstruction)
        loss = loss + auxiliary_loss(self.config, params, pre, z - reconstruction, context.dead)
        return Forward(loss, codes, reconstruction)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient through the active pairs only."""
        centred = z - params["b_dec"]
        active = top_k_active(centred, params["encoder"], params["b_enc"], self.config.k, context.workers)
        result = sparse_gradients(params, z, centred, active, workers=context.workers)
        return add_auxiliary_gradient(self.config, params, centred, result, context.dead)

    def export(
        self, params: Params, scaling: InputScaling, sample: Float[Tensor, "n d_in"]
    ) -> SparseAutoencoder:
        """Fold the scaling into the weights."""
        return TopKAutoencoder(self.config, fold(params, scaling))


def keep_top_k(pre: Float[Tensor, "*batch d_sae"], k: int) -> Float[Tensor, "*batch d_sae"]:
    """Set all but the ``k`` largest positive entries of the last dimension to 0."""
    values, features = pre.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(pre).scatter(-1, features, values.relu())
