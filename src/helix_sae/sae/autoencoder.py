"""The sparse autoencoder as it is used: raw activations in, codes and reconstructions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from helix_sae.errors import ModelError
from helix_sae.sae.config import SaeConfig
from helix_sae.sae.sparse import ActiveCodes


class SparseAutoencoder(nn.Module, ABC):
    """Base of the architectures: ``codes = encode(x)``, ``x_hat = codes @ W_dec + b_dec``.

    Takes raw activations: the centring and scaling of training are folded into the weights. Decoder rows have
    unit norm, so a code is the length, in units of the activation, of its feature's contribution.

    ``stability`` says of each feature in how many other seeds it comes back
    (:func:`~helix_sae.sae.stability.feature_stability`); None where no other seed was there to compare with.
    It is stored and read with the weights, as is ``origin``: JSON values that say what it was trained on
    (``model``, the fingerprint of the model; ``site``; ``error_999``, see :mod:`helix_sae.sae.fit`).

    Parameters
    ----------
    config : SaeConfig
        With ``d_in`` filled in.
    tensors : mapping of str to Tensor
        ``W_enc`` (d_in, d_sae), ``W_dec`` (d_sae, d_in), ``b_dec`` (d_in,) and what the architecture adds
        (:attr:`tensor_shapes`).

    Raises
    ------
    ModelError
        If a tensor is missing, unexpected, of the wrong shape or not finite.
    """

    bias_names: ClassVar[tuple[str, ...]] = ("b_enc",)
    """Names of the tensors of shape (d_sae,)."""

    encoder_biases: ClassVar[tuple[str, ...]] = ("b_enc",)
    """Those of them that are added to the encoder products."""

    W_enc: Float[Tensor, "d_in d_sae"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, " d_in"]

    def __init__(self, config: SaeConfig, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.stability: pd.DataFrame | None = None
        self.origin: dict[str, Any] = {}
        self.d_in: int = int(tensors["b_dec"].numel()) if config.d_in is None else config.d_in
        self.d_sae: int = config.d_sae
        shapes = self.tensor_shapes()
        if set(tensors) != set(shapes):
            raise ModelError(
                f"A {config.architecture} SAE has the tensors {sorted(shapes)}, but {sorted(tensors)} were "
                "given."
            )
        for name, shape in shapes.items():
            value = tensors[name]
            if tuple(value.shape) != shape:
                raise ModelError(f"SAE tensor {name} has shape {tuple(value.shape)}; {shape} is needed.")
            if not bool(torch.isfinite(value).all()):
                raise ModelError(f"SAE tensor {name} holds values that are not finite; train the SAE again.")
            self.register_parameter(name, nn.Parameter(value.detach().to(torch.float32).clone()))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of this architecture."""
        return {
            "W_enc": (self.d_in, self.d_sae),
            "W_dec": (self.d_sae, self.d_in),
            "b_dec": (self.d_in,),
            **dict.fromkeys(self.bias_names, (self.d_sae,)),
        }

    @abstractmethod
    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations, dense and differentiable."""

    def decode(self, codes: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Raw activations of codes."""
        return codes @ self.W_dec + self.b_dec

    @property
    def directions(self) -> Float[Tensor, "d_sae d_in"]:
        """Change of the reconstruction for one unit of each code."""
        return self.W_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Reconstruction of raw activations."""
        return self.decode(self.encode(x))

    @abstractmethod
    def encode_active(self, x: Float[Tensor, "n d_in"]) -> ActiveCodes:
        """Codes as active pairs (some may be 0), without gradient."""

    @abstractmethod
    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What SAELens calls this SAE: keys for ``cfg.json`` (with ``architecture``) and tensors."""

    def project(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Multiply by the encoder, without bias: ``(x - b_dec) @ W_enc``."""
        return (x - self.b_dec) @ self.W_enc

    def encoder_inputs(
        self, x: Float[Tensor, "n d_in"]
    ) -> tuple[Float[Tensor, "n d_in"], Float[Tensor, "d_sae d_in"]]:
        """``x - b_dec`` and the encoder's rows, detached: what :mod:`helix_sae.sae.selection` takes."""
        return (x.detach() - self.b_dec.detach()), self.W_enc.detach().T
