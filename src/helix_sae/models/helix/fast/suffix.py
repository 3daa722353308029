"""Running on over the end of a sequence only.

In a causal model nothing before a change moves, so an intervention whose first change is at token ``start`` needs only the
tokens from there on, and of those before it no more than each layer hands on: the state of a mixer's scan and the last
inputs of its convolution, the keys and values of attention. :func:`prefix_states` takes these from a finished pass once;
any number of resumed passes then share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from helix_sae.models.contract import check_start
from helix_sae.models.helix.fast.forward import AttentionState, MixerState, attention_state, mixer_state


class LayerStates:
    """States of the layers after a prefix, each computed when it is first asked for: a pass from a late site needs few.

    Parameters
    ----------
    layers : iterable of nn.Module
    residual : sequence of float (batch, start, hidden)
        The residual stream of the prefix that enters each of them.
    """

    def __init__(
        self, layers: Iterable[nn.Module], residual: Sequence[Float[Tensor, "batch start hidden"]]
    ) -> None:
        self._entering = list(zip(layers, residual, strict=True))
        self._found: dict[int, MixerState | AttentionState | None] = {}
        self._grad_enabled = torch.is_grad_enabled()

    def __getitem__(self, k: int) -> MixerState | AttentionState | None:
        """The state of layer ``k``; None for one without memory."""
        if k not in self._found:
            with torch.set_grad_enabled(self._grad_enabled):
                self._found[k] = _state(*self._entering[k])
        return self._found[k]


class PrefixStates(NamedTuple):
    """What the tokens before ``start`` hand on to those after, at every layer.

    Rows of a batch are picked with :meth:`rows`; nothing is copied until a layer needs it.

    Attributes
    ----------
    start : int
        Number of tokens before the suffix.
    residual : tuple of float (batch, time - start, hidden)
        The residual stream of the suffix: ``residual[k]`` enters layer ``k``; the last one leaves the last layer.
    layers : LayerStates
    hidden : float (batch, start, hidden)
        Last hidden states of the prefix, which no change of the suffix moves.
    index : int (n,), optional
        Rows of the arrays above that stand here; all of them when absent.
    is_one : bool
        Whether that is the same row each time: it is then looked at n times instead of copied.
    """

    start: int
    residual: tuple[Float[Tensor, "batch suffix hidden"], ...]
    layers: LayerStates
    hidden: Float[Tensor, "batch start hidden"]
    index: Int[Tensor, " n"] | None = None
    is_one: bool = False

    def rows(self, index: Int[Tensor, " n"]) -> PrefixStates:
        """The states of some sequences of the batch, repeats allowed."""
        index = index if self.index is None else self.index[index]
        return self._replace(index=index, is_one=index.numel() > 0 and bool((index == index[0]).all()))

    def pick(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "n *rest"]:
        """The rows of an array of the whole batch that stand here; not to be written to."""
        if self.index is None:
            return x
        if self.is_one:
            return x[int(self.index[0])].unsqueeze(0).expand(len(self.index), *x.shape[1:])
        return x.index_select(0, self.index)

    def layer(self, k: int) -> MixerState | AttentionState | None:
        """The state at layer ``k``, for the rows that stand here."""
        state = self.layers[k]
        return state if state is None else state.map(self.pick)


def prefix_states(
    network: Any, residual: tuple[Float[Tensor, "batch time hidden"], ...], start: int
) -> PrefixStates:
    """Take from a finished pass what the tokens before ``start`` hand on.

    Parameters
    ----------
    network : nn.Module
        A mended ``HelixmRNAPretrainedModel``.
    residual : tuple of float (batch, time, hidden)
        The residual stream before each layer and after the last, of that pass.
    start : int
        Between 0 and the number of tokens, exclusive.

    Raises
    ------
    ModelError
        If there is no token from ``start`` on.
    """
    check_start(start, residual[0].shape[1])
    states = LayerStates(network.layers, [entering[:, :start] for entering in residual[:-1]])
    hidden = network.norm_f(residual[-1][:, :start])
    return PrefixStates(start, tuple(r[:, start:] for r in residual), states, hidden)


def pool_suffix(
    hidden: Float[Tensor, "n suffix hidden"],
    prefix: PrefixStates,
    is_nucleotide: Bool[Tensor, "batch time"],
) -> Float[Tensor, "n hidden"]:
    """Mean over the nucleotide tokens of whole sequences, from the prefix and a resumed suffix.

    Parameters
    ----------
    hidden : float (n, suffix, hidden)
        Last hidden states of the suffix, of the rows that stand in ``prefix``.
    prefix : PrefixStates
    is_nucleotide : bool (batch, time)
        Of the whole batch that the prefix was taken from, not of the picked rows.
    """
    weights = is_nucleotide.unsqueeze(-1).to(hidden.dtype)
    before = (prefix.hidden * weights[:, : prefix.start]).sum(1)
    after = (hidden * prefix.pick(weights)[:, prefix.start :]).sum(1)
    return (prefix.pick(before) + after) / prefix.pick(weights.sum(1))


def _state(
    layer: nn.Module, residual: Float[Tensor, "batch start hidden"]
) -> MixerState | AttentionState | None:
    if hasattr(layer, "mixer"):
        return mixer_state(layer, residual)
    if hasattr(layer, "self_attn"):
        return attention_state(layer, residual)
    return None
