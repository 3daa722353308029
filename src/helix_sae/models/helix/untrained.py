"""A network's architecture with fresh weights: what can be read from its activations before it has learnt anything."""

from __future__ import annotations

import copy

import torch
from torch import nn

from helix_sae.models.helix.mending import mend
from helix_sae.models.upstream import undisturbed_logging


def untrained_network(network: nn.Module, seed: int) -> nn.Module:
    """A mended network of the same configuration with random weights, on the CPU in float32.

    Parameters
    ----------
    network : nn.Module
        Left as it is.
    seed : int
        Seeds the initialisation; the process's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]), undisturbed_logging():
        torch.manual_seed(seed)
        fresh = type(network)(copy.deepcopy(network.config))  # pyright: ignore[reportCallIssue]
    mend(fresh)
    return fresh
