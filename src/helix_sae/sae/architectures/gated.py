"""Gated SAE: which features are active is decided apart from how strongly (Rajamanoharan et al. 2024, arXiv:2404.16014).

With ``a = W_enc (x - b_dec)``: gate ``p = a + b_gate``, magnitude ``m = ReLU(exp(r_mag) a + b_mag)``,
``c = 1[p > 0] m``, ``x_hat = W_dec^T c + b_dec``. Loss
``|z - z_hat|^2 / d_in + l1_coefficient sum_j ReLU(p)_j / (0.01 sqrt(d_in))``
``+ |z - W_dec'^T ReLU(p) - b_dec'|^2 / d_in``,
the primed parameters held fixed: the penalty shrinks the gate, not the magnitude.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import GatedConfig
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
from helix_sae.sae.sparse import ActiveCodes, by_feature, feature_sum, weight_gradient
from helix_sae.sae.step import encoder_gradients, reconstruct, sparse_result

_SPARSE_BELOW = 0.25


class GatedAutoencoder(SparseAutoencoder):
    """Inference side; see the module."""

    bias_names = ("b_gate", "r_mag", "b_mag")
    encoder_biases = ("b_gate", "b_mag")

    b_gate: Float[Tensor, " d_sae"]
    r_mag: Float[Tensor, " d_sae"]
    b_mag: Float[Tensor, " d_sae"]

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations."""
        products = self.project(x)
        magnitude = torch.relu(products * self.r_mag.exp() + self.b_mag)
        return magnitude * (products + self.b_gate > 0)

    def encode_active(self, x: Float[Tensor, "n d_in"]) -> ActiveCodes:
        """Codes as active pairs; open gates of magnitude 0 are kept."""
        gates = active_above(*self.encoder_inputs(x), self.b_gate.detach(), torch.zeros_like(self.b_gate))
        return _magnitudes(dict(self.named_parameters()), gates)[0]

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """SAELens: ``gated``."""
        return {"architecture": "gated"}, dict(self.named_parameters())


class GatedObjective(Objective[GatedConfig]):
    """Training side; see the module."""

    def initialise(self, generator: torch.Generator) -> Params:
        """Random unit decoder rows, the encoder their copy, the rest 0."""
        params = super().initialise(generator)
        del params["b_enc"]
        return {**params, **{name: torch.zeros(self.d_sae) for name in GatedAutoencoder.bias_names}}

    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Definition of the loss."""
        products = (z - params["b_dec"]) @ params["encoder"].T
        gate = products + params["b_gate"]
        magnitude = torch.relu(products * params["r_mag"].exp() + params["b_mag"])
        codes = magnitude * (gate > 0)
        reconstruction = codes @ params["decoder"] + params["b_dec"]
        opened = torch.relu(gate)
        by_gate = opened @ params["decoder"].detach() + params["b_dec"].detach()
        penalty = self.config.penalty * context.sparsity_weight
        loss = reconstruction_loss(z, reconstruction) + reconstruction_loss(z, by_gate)
        return Forward(loss + penalty * opened.sum(1).mean(), codes, reconstruction)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient through the open gates, or by autograd where too many are open."""
        centred = z - params["b_dec"]
        if density_above(centred, params["encoder"], params["b_gate"]) > _SPARSE_BELOW:
            return self.autograd_gradients(params, z, context)
        workers = context.workers
        penalty = self.config.penalty * context.sparsity_weight
        zero = torch.zeros_like(params["b_gate"])
        gates = active_above(centred, params["encoder"], params["b_gate"], zero, workers)
        active, products = _magnitudes(params, gates)
        order = by_feature(active, self.d_sae)
        main = reconstruct(params, z, active, workers)
        aside = reconstruct(params, z, gates, workers)

        live = active.codes > 0
        growth = params["r_mag"].exp()[active.features]
        by_magnitude = main.codes.mul_(live)
        by_gate = aside.codes.add_(penalty / z.shape[0])
        gradients = encoder_gradients(
            params, centred, active, order, by_gate + by_magnitude * growth, workers
        )
        del gradients["b_enc"]
        gradients["b_dec"] += main.gradient.sum(0)
        gradients["decoder"] = weight_gradient(order, active.codes, main.gradient, workers)
        gradients["b_gate"] = feature_sum(active, by_gate, self.d_sae)
        gradients["b_mag"] = feature_sum(active, by_magnitude, self.d_sae)
        gradients["r_mag"] = feature_sum(active, by_magnitude * growth * products, self.d_sae)
        result = sparse_result(gradients, main.residual, active, live)
        aside_loss = aside.residual.square().sum() / z.numel() + penalty * gates.codes.sum() / z.shape[0]
        return replace(result, loss=result.loss + aside_loss)

    def export(
        self, params: Params, scaling: InputScaling, sample: Float[Tensor, "n d_in"]
    ) -> SparseAutoencoder:
        """Fold the scaling into the weights."""
        tensors = fold({**params, "b_enc": params["b_gate"]}, scaling)
        tensors["b_gate"] = tensors.pop("b_enc")
        tensors["b_mag"] = params["b_mag"] / scaling.scale
        tensors["r_mag"] = params["r_mag"].clone()
        return GatedAutoencoder(self.config, tensors)


def _magnitudes(params: Params, gates: ActiveCodes) -> tuple[ActiveCodes, Float[Tensor, " n_active"]]:
    """Codes at the open gates, and the encoder products they come from."""
    r_mag, b_mag, b_gate = (params[name].detach()[gates.features] for name in ("r_mag", "b_mag", "b_gate"))
    products = gates.codes - b_gate
    return gates._replace(codes=torch.relu(products * r_mag.exp() + b_mag)), products
