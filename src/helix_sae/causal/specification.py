"""An experiment as plain data: what is stored, sent to another process, and opened there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from helix_sae.causal.alignment import TokenPair
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.read_out import Probe
from helix_sae.causal.terms import DEFAULT_TOKEN_BUDGET, Direction, Positions
from helix_sae.models.contract import Model
from helix_sae.sae import SparseAutoencoder, parse_sae_config
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.restricted import RestrictedAutoencoder


class ModelReference(Protocol):
    """Names a model and can open it. What is stored of it is a dataclass of plain values."""

    def open(self) -> Model:
        """The model, opened once in each process."""
        ...


@dataclass(frozen=True)
class StoredAutoencoder:
    """An autoencoder as its configuration and arrays.

    Attributes
    ----------
    config : mapping
        :class:`helix_sae.sae.SaeConfig` as JSON values.
    tensors : mapping of name to float32 array
    spoken : bool array (d_sae,), optional
        The features that the experiment speaks of; all when not given. The others belong to the error node.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    spoken: np.ndarray | None = None

    @classmethod
    def of(cls, sae: SparseAutoencoder, spoken: np.ndarray | None = None) -> StoredAutoencoder:
        """From an autoencoder, and which of its features are spoken of."""
        tensors = {name: getattr(sae, name).detach().cpu().numpy() for name in sae.tensor_shapes()}
        return cls(sae.config.model_dump(mode="json"), tensors, spoken)

    def open(self) -> SparseAutoencoder:
        """The autoencoder, on the CPU."""
        config = parse_sae_config(dict(self.config))
        tensors = {name: torch.from_numpy(array) for name, array in self.tensors.items()}
        whole = architecture_of(config).autoencoder(config, tensors)
        return whole if self.spoken is None else RestrictedAutoencoder(whole, self.spoken)


@dataclass(frozen=True)
class Specification:
    """What an :class:`~helix_sae.causal.experiment.Experiment` is made of.

    Attributes
    ----------
    model : ModelReference
    dictionaries : mapping of site to StoredAutoencoder
    read_out : Probe
    pairs : list of TokenPair
    direction, positions, token_budget
        See :class:`~helix_sae.causal.experiment.Experiment`.
    """

    model: ModelReference
    dictionaries: Mapping[str, StoredAutoencoder]
    read_out: Probe
    pairs: list[TokenPair]
    direction: Direction = "source_to_target"
    positions: Positions = "nucleotides"
    token_budget: int = DEFAULT_TOKEN_BUDGET

    def open(self) -> Experiment:
        """The experiment, with the model and the dictionaries on the model's device."""
        model = self.model.open()
        return Experiment(
            model,
            {site: stored.open().to(model.device) for site, stored in self.dictionaries.items()},
            self.read_out,
            self.pairs,
            self.direction,
            self.positions,
            self.token_budget,
        )
