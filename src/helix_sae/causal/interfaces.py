"""What the causal analysis asks of a model, a dictionary of features and a read-out.

:class:`helix_sae.models.helix.model.HelixModel` and :class:`helix_sae.sae.SparseAutoencoder` have these interfaces; so have
the toy chains of the tests and the baseline dictionaries, which is what lets all of them go through one machinery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.models.helix.fast.suffix import StillTokens

Edit = Callable[[Tensor], Tensor]
"""Replaces an activation of shape (batch, time, width) by another of the same shape."""

Method = Literal["exact", "atp", "ig"]
"""How an effect is estimated: by running the model on, by one gradient, or by integrated gradients."""

Direction = Literal["source_to_target", "target_to_source"]
"""Which sequence of a pair is run, and which gives the values that are patched in."""

Positions = Literal["nucleotides", "tokens", "edited"]
"""Which aligned tokens are patched: nucleotides; those and the codon markers; only the edited nucleotides."""

Start = Literal["source", "patched"]
"""Where a single feature is changed: alone on the source's run, or left out of the fully patched site."""

DEFAULT_TOKEN_BUDGET = 2048
"""Tokens in one pass. An intervention is many short passes through few weights: on a CPU what one of them writes should stay in
the cache. A GPU wants ten times as many."""

ERROR = "error"
"""Name of the node that stands for a site's reconstruction error."""


class Cache(Protocol):
    """What a pass left behind, for :meth:`InterventionModel.resume`."""

    def rows(self, index: Int[Tensor, " n"]) -> Cache:
        """The cache of some sequences of the batch, repeats allowed."""
        ...


class InterventionModel(Protocol):
    """A model whose activations can be read, replaced and run on from."""

    site_names: tuple[str, ...]
    """Every valid site, in the order in which the forward pass reaches them."""
    fingerprint: str

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        ...

    def check_sites(self, sites: Sequence[str]) -> None:
        """Raise ``UnknownSiteError`` for a site that does not exist."""
        ...

    def capture(
        self, ids: Int[Tensor, "batch time"], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch time width"]]:
        """Activations at sites, without gradients."""
        ...

    def edited(self, edits: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """Within the block, every pass replaces the activation at each named site by what its edit returns."""
        ...

    def cache(self, ids: Int[Tensor, "batch time"]) -> Any:
        """What :meth:`resume` needs (a :class:`Cache`); inside :meth:`edited`, that of the edited pass."""
        ...

    def at_site(self, site: str, cache: Any) -> Float[Tensor, "batch time width"]:
        """The activation at a site, from a cache."""
        ...

    def resume(
        self,
        site: str,
        value: Float[Tensor, "batch time width"],
        cache: Any,
        hooks: Mapping[str, Edit] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """Last hidden state with ``value`` at ``site``; later sites may be edited by hooks."""
        ...

    def prefix_states(self, cache: Any, start: int) -> Any:
        """What the tokens before ``start`` hand on to those after, for :meth:`resume_suffix`."""
        ...

    def resume_suffix(
        self,
        site: str,
        value: Float[Tensor, "n suffix width"],
        prefix: Any,
        hooks: Mapping[str, Edit] | None = None,
        changed: Bool[Tensor, "n suffix"] | None = None,
        still: StillTokens | None = None,
    ) -> Float[Tensor, "n suffix hidden"]:
        """:meth:`resume` over the tokens from the prefix's start on.

        ``changed`` says where ``value`` is another, ``still`` names tokens that need to be computed once only.
        """
        ...

    def pool_suffix(
        self,
        hidden: Float[Tensor, "n suffix hidden"],
        prefix: Any,
        is_nucleotide: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "n hidden"]:
        """:meth:`pool` of whole sequences from a resumed suffix."""
        ...

    def run(
        self, ids: Int[Tensor, "batch time"], edits: Mapping[str, Edit]
    ) -> Float[Tensor, "batch time hidden"]:
        """Last hidden state of a full pass with edits at sites."""
        ...

    def pool(
        self, hidden: Float[Tensor, "batch time hidden"], is_nucleotide: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch hidden"]:
        """Mean over nucleotide tokens."""
        ...


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
