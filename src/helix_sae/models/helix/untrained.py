"""A model's architecture with fresh weights: what can be read from its activations before it has learnt anything."""

from __future__ import annotations

import copy

import torch

from helix_sae.models.helix.mending import mend
from helix_sae.models.helix.model import HelixModel
from helix_sae.models.helix.upstream import undisturbed_logging


def untrained_twin(model: HelixModel, seed: int) -> HelixModel:
    """A mended model of the same configuration, device and precision, with random weights.

    Parameters
    ----------
    model : HelixModel
        Left as it is.
    seed : int
        Seeds the initialisation; the process's random state is left as it was.

    Returns
    -------
    HelixModel
        Without heads.
    """
    with torch.random.fork_rng(devices=[]), undisturbed_logging():
        torch.manual_seed(seed)
        network = type(model.module)(copy.deepcopy(model.module.config))  # pyright: ignore[reportCallIssue]
    mend(network)
    network = network.to(device=model.device, dtype=model.dtype).eval().requires_grad_(False)
    if model.dtype == torch.float64:
        for layer in network.layers:  # pyright: ignore[reportGeneralTypeIssues]
            layer.residual_in_fp32 = False  # as when a checkpoint is opened in float64
    return HelixModel(network, fingerprint=f"untrained {seed}", heads=None)
