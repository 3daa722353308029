"""Running on over the end of a sequence only.

In a causal model nothing before a change moves, so an intervention whose first change is at token ``start``
needs only the tokens from there on, and of those before it no more than each block hands on: the state of a
mixer's scan and the last inputs of its convolution, the keys and values of attention. :func:`prefix_states`
takes these from a finished pass once; any number of resumed passes then share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.models.contract import check_start, widened


class BlockState(Protocol):
    """What a block hands on of the tokens before, a row a sequence."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same state with a function applied to its arrays."""
        ...


StateOf = Callable[[int, Float[Tensor, "batch start hidden"]], BlockState | None]
"""The state that a block leaves, by its number and the residual stream that enters it; None for one without
memory."""


class BlockStates:
    """States of the blocks after a prefix, each computed when it is first asked for: a pass from a late site needs few.

    Parameters
    ----------
    state_of : callable
    residual : sequence of float (batch, start, hidden)
        The residual stream of the prefix that enters each block.
    """

    def __init__(self, state_of: StateOf, residual: Sequence[Float[Tensor, "batch start hidden"]]) -> None:
        self._state_of, self._residual = state_of, residual
        self._found: dict[int, BlockState | None] = {}
        self._grad_enabled = torch.is_grad_enabled()

    def __getitem__(self, k: int) -> BlockState | None:
        """The state of block ``k``; None for one without memory."""
        if k not in self._found:
            with torch.set_grad_enabled(self._grad_enabled):
                self._found[k] = self._state_of(k, self._residual[k])
        return self._found[k]


class PrefixStates(NamedTuple):
    """What the tokens before ``start`` hand on to those after, in every block.

    Rows of a batch are picked with :meth:`rows`; nothing is copied until a block needs it.

    Attributes
    ----------
    start : int
        Number of tokens before the suffix.
    residual : tuple of float (batch, time - start, hidden)
        The residual stream of the suffix: ``residual[k]`` enters block ``k``; the last one leaves the last
        block.
    blocks : BlockStates
    hidden : float (batch, start, hidden)
        Last hidden states of the prefix, which no change of the suffix moves.
    index : int (n,), optional
        Rows of the arrays above that stand here; all of them when absent.
    is_one : bool
        Whether that is the same row each time: it is then looked at n times instead of copied.
    """

    start: int
    residual: tuple[Float[Tensor, "batch suffix hidden"], ...]
    blocks: BlockStates
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

    def state(self, k: int) -> BlockState | None:
        """The state of block ``k``, for the rows that stand here."""
        state = self.blocks[k]
        return state if state is None else state.map(self.pick)


def prefix_states(
    state_of: StateOf,
    last_norm: Callable[[Tensor], Tensor],
    residual: tuple[Float[Tensor, "batch time hidden"], ...],
    start: int,
) -> PrefixStates:
    """Take from a finished pass what the tokens before ``start`` hand on.

    Parameters
    ----------
    state_of : callable
    last_norm : callable
        From the residual stream after the last block to the last hidden states.
    residual : tuple of float (batch, time, hidden)
        The residual stream before each block and after the last, of that pass.
    start : int
        Between 0 and the number of tokens, exclusive.

    Raises
    ------
    ModelError
        If there is no token from ``start`` on.
    """
    check_start(start, residual[0].shape[1])
    states = BlockStates(state_of, [entering[:, :start] for entering in residual[:-1]])
    hidden = last_norm(residual[-1][:, :start])
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
    # In at least float32, as whole sequences are pooled: effects are differences between the two.
    hidden = widened(hidden)
    weights = is_nucleotide.unsqueeze(-1).to(hidden.dtype)
    before = (prefix.hidden * weights[:, : prefix.start]).sum(1)
    after = (hidden * prefix.pick(weights)[:, prefix.start :]).sum(1)
    return (prefix.pick(before) + after) / prefix.pick(weights.sum(1))
