"""JumpReLU: a learned threshold for each feature (Rajamanoharan et al. 2024, arXiv:2407.14435).

``c = pre * 1[pre > threshold]`` with ``pre = W_enc (x - b_dec) + b_enc`` and
``threshold = exp(rate * log_threshold)`` (Adam moves a parameter by about the learning rate a step;
``rate``, the configuration's ``threshold_rate``, lets thresholds go further than weights); loss
``|z - z_hat|^2 / d_in + l0_coefficient * (active features) + AuxK``. Steps have no gradient: for the
threshold it is taken from a rectangle of width ``bandwidth`` around it, ``dc/dthreshold = -threshold /
bandwidth`` and ``d1/dthreshold = -1 / bandwidth`` where ``|pre - threshold| < bandwidth / 2``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.architectures.batchtopk import ThresholdAutoencoder
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.auxiliary import add_auxiliary_gradient, auxiliary_loss
from helix_sae.sae.config import JumpReluConfig
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
from helix_sae.sae.sparse import by_feature, feature_sum, weight_gradient
from helix_sae.sae.step import encoder_gradients, reconstruct, sparse_result

_SPARSE_BELOW = 0.25


class JumpReluObjective(Objective[JumpReluConfig]):
    """Training side; see the module."""

    def initialise(self, generator: torch.Generator) -> Params:
        """Random unit decoder rows, the encoder their copy, biases 0, equal thresholds."""
        start = torch.full((self.d_sae,), self.restart_value("log_threshold"))
        return {**super().initialise(generator), "log_threshold": start}

    def thresholds(self, params: Params) -> Float[Tensor, " d_sae"]:
        """Threshold of each feature, in scaled units."""
        return (self.config.threshold_rate * params["log_threshold"]).exp()

    def restart_value(self, name: str) -> float:
        """Thresholds go back to where they began, the rest to 0."""
        if name != "log_threshold":
            return 0.0
        return math.log(self.config.initial_threshold) / self.config.threshold_rate

    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Definition of the loss."""
        pre = (z - params["b_dec"]) @ params["encoder"].T + params["b_enc"]
        threshold = self.thresholds(params)
        codes = _Jump.apply(pre, threshold, self.config.bandwidth)
        active = _Step.apply(pre, threshold, self.config.bandwidth)
        reconstruction = codes @ params["decoder"] + params["b_dec"]
        price = self.config.l0_coefficient * context.sparsity_weight
        loss = reconstruction_loss(z, reconstruction) + price * active.sum(1).mean()  # pyright: ignore[reportOptionalMemberAccess]
        loss = loss + auxiliary_loss(self.config, params, pre, z - reconstruction, context.dead)
        return Forward(loss, codes, reconstruction)  # pyright: ignore[reportArgumentType]

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient through the pairs above or just below their threshold, or by autograd where many are."""
        bandwidth = self.config.bandwidth
        threshold = self.thresholds(params)
        floor = threshold - bandwidth / 2
        centred = z - params["b_dec"]
        if density_above(centred, params["encoder"], params["b_enc"] - floor) > _SPARSE_BELOW:
            return self.autograd_gradients(params, z, context)
        workers = context.workers
        near = active_above(centred, params["encoder"], params["b_enc"], floor, workers)
        pair_threshold = threshold[near.features]
        live = near.codes > pair_threshold
        active = near._replace(codes=near.codes * live)
        window = (near.codes - pair_threshold).abs() < bandwidth / 2
        order = by_feature(active, self.d_sae)
        main = reconstruct(params, z, active, workers)

        price = self.config.l0_coefficient * context.sparsity_weight
        # d loss / d log_threshold: what the code is worth at the threshold, and what being active costs.
        worth = main.codes * pair_threshold + price / z.shape[0]
        pull = worth * pair_threshold * window * (self.config.threshold_rate / -bandwidth)
        gradients = encoder_gradients(params, centred, active, order, main.codes.mul_(live), workers)
        gradients["decoder"] = weight_gradient(order, active.codes, main.gradient, workers)
        gradients["b_dec"] += main.gradient.sum(0)
        gradients["log_threshold"] = feature_sum(active, pull, self.d_sae)
        result = sparse_result(gradients, main.residual, active, live)
        result = replace(result, loss=result.loss + price * live.sum() / z.shape[0])
        return add_auxiliary_gradient(self.config, params, centred, result, context.dead)

    def export(
        self, params: Params, scaling: InputScaling, sample: Float[Tensor, "n d_in"]
    ) -> SparseAutoencoder:
        """Fold the scaling into the weights."""
        threshold = self.thresholds(params) / scaling.scale
        names = ("encoder", "b_enc", "decoder", "b_dec")
        tensors = fold({name: params[name] for name in names}, scaling)
        return ThresholdAutoencoder(self.config, {**tensors, "threshold": threshold})


class _Jump(torch.autograd.Function):
    """``pre * 1[pre > threshold]`` with the rectangle's gradient for the threshold."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        (grad,) = grads
        window = (pre - threshold).abs() < ctx.bandwidth / 2
        return grad * (pre > threshold), (grad * window * -threshold / ctx.bandwidth).sum(0), None


class _Step(torch.autograd.Function):
    """``1[pre > threshold]`` with the rectangle's gradient for the threshold, and none for ``pre``."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        (grad,) = grads
        window = (pre - threshold).abs() < ctx.bandwidth / 2
        return None, (grad * window / -ctx.bandwidth).sum(0), None
