"""What the causal analysis asks of a dictionary of features and a read-out; the model is :mod:`helix_sae.models.contract`'s.

:class:`helix_sae.sae.SparseAutoencoder` and the baseline dictionaries have these interfaces, which is what
lets all of them go through one machinery.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

Method = Literal["exact", "atp", "ig"]
"""How an effect is estimated: by running the model on, by one gradient, or by integrated gradients."""

Direction = Literal["source_to_target", "target_to_source"]
"""Which sequence of a pair is run, and which gives the values that are patched in."""

Positions = Literal["nucleotides", "tokens", "edited"]
"""Which aligned tokens are patched: nucleotides; those and the codon markers; only the edited nucleotides."""

Start = Literal["source", "patched"]
"""Where a single feature is changed: alone on the source's run, or left out of the fully patched site."""

DEFAULT_TOKEN_BUDGET = 2048
"""Tokens in one pass. An intervention is many short passes through few weights: on a CPU what one of them
writes should stay in
the cache. A GPU wants ten times as many."""

ERROR = "error"
"""Name of the node that stands for a site's reconstruction error."""


class Dictionary(Protocol):
    """Features of a site's activations. ``decode`` must be affine.

    What one unit of each code adds to an activation may be given as ``directions``, (features, width).
    """

    def encode(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n features"]:
        """Codes of raw activations, differentiable."""
        ...

    def decode(self, codes: Float[Tensor, "n features"]) -> Float[Tensor, "n width"]:
        """Raw activations of codes."""
        ...


class ReadOut(Protocol):
    """A scalar read from pooled embeddings, and how far two of its values are apart."""

    def __call__(self, embedding: Float[Tensor, "batch hidden"]) -> Float[Tensor, " batch"]:
        """The value read, differentiable."""
        ...

    def divergence(
        self, y: Float[Tensor, " batch"], y_target: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Kullback-Leibler divergence, in nats."""
        ...


def decoder_directions(
    dictionary: Dictionary, x: Float[Tensor, "n width"]
) -> Float[Tensor, "features width"]:
    """Change of the activation for one unit of each code, read off ``decode``, so that a scaling applied there is counted.

    Parameters
    ----------
    dictionary : Dictionary
    x : float (n, width)
        Any activations of the site.
    """
    with torch.no_grad():
        n_features = int(dictionary.encode(x).shape[-1])
        basis = torch.eye(n_features, device=x.device, dtype=x.dtype)
        return dictionary.decode(basis) - dictionary.decode(basis.new_zeros(1, n_features))
