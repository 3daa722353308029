"""Every architecture by its name."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from helix_sae.errors import ConfigurationError
from helix_sae.sae.architectures.batchtopk import BatchTopKObjective, ThresholdAutoencoder
from helix_sae.sae.architectures.gated import GatedAutoencoder, GatedObjective
from helix_sae.sae.architectures.jumprelu import JumpReluObjective
from helix_sae.sae.architectures.matryoshka import MatryoshkaObjective
from helix_sae.sae.architectures.relu import ReluAutoencoder, ReluObjective
from helix_sae.sae.architectures.relu_tied import ReluTiedObjective
from helix_sae.sae.architectures.topk import TopKAutoencoder, TopKObjective
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import ADDED, SaeConfig
from helix_sae.sae.objective import Objective
from helix_sae.sae.scaling import InputScaling


class Architecture(NamedTuple):
    """Training side and inference side of an architecture."""

    objective: type[Objective[Any]]
    autoencoder: type[SparseAutoencoder]


ARCHITECTURES: dict[str, Architecture] = {
    "relu": Architecture(ReluObjective, ReluAutoencoder),
    "relu_tied": Architecture(ReluTiedObjective, ReluAutoencoder),
    "topk": Architecture(TopKObjective, TopKAutoencoder),
    "batchtopk": Architecture(BatchTopKObjective, ThresholdAutoencoder),
    "matryoshka": Architecture(MatryoshkaObjective, ThresholdAutoencoder),
    "jumprelu": Architecture(JumpReluObjective, ThresholdAutoencoder),
    "gated": Architecture(GatedObjective, GatedAutoencoder),
}


def register_architecture(
    config: type[SaeConfig], objective: type[Objective[Any]], autoencoder: type[SparseAutoencoder]
) -> None:
    """Add an architecture, under the name that its configuration has by default.

    Every process that trains or loads such an SAE has to do it. Registering the same three again is fine.

    Parameters
    ----------
    config : type of SaeConfig
        Its field ``architecture`` is a ``Literal`` whose default is the name.
    objective : type of Objective
        At least :meth:`Objective.forward` and :meth:`Objective.export`.
    autoencoder : type of SparseAutoencoder
        What training gives.

    Raises
    ------
    ConfigurationError
        If the configuration names no architecture, or the name is taken.
    """
    name = config.model_fields["architecture"].default
    added = Architecture(objective, autoencoder)
    if not isinstance(name, str):
        raise ConfigurationError(
            f'{config.__name__} names no architecture; write architecture: Literal["my_name"] = "my_name".'
        )
    if name in ARCHITECTURES and (ARCHITECTURES[name], ADDED.get(name)) != (added, config):
        raise ConfigurationError(f"There is an SAE architecture {name!r} already; choose another name.")
    ARCHITECTURES[name] = added
    ADDED[name] = config


def architecture_of(config: SaeConfig) -> Architecture:
    """Look up a configuration's architecture.

    Raises
    ------
    ConfigurationError
        If there is none of that name.
    """
    if config.architecture not in ARCHITECTURES:
        raise ConfigurationError(
            f"There is no SAE architecture {config.architecture!r}; there are {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[config.architecture]


def random_autoencoder(config: SaeConfig, scaling: InputScaling, seed: int) -> SparseAutoencoder:
    """Give an SAE at its random start, untrained: a baseline.

    Where an architecture sets its threshold from data, Gaussian activations stand in for them.
    """
    objective = architecture_of(config).objective(config)
    generator = torch.Generator().manual_seed(seed)
    params = objective.initialise(generator)
    return objective.export(params, scaling, torch.randn(4096, scaling.mean.numel(), generator=generator))
