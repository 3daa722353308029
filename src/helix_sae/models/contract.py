"""What everything else may ask of a model.

A model of one's own is a :class:`Model` with three things of its own: which tokens it can be given
(``markers`` and ``vocabulary``), which of its modules are sites, and a forward pass. How its activations are
read, edited and run on from, its pool and its embeddings have defaults here, by hooks on the sites and by
whole passes; a model that knows a shorter way (:mod:`helix_sae.models.helix`) overrides them and is held to
the defaults by its tests.

Activations are handed out, and edited, in at least float32 whatever the precision of the weights: what is
learnt of them and subtracted from them is float32.

Asked of every model, and tried when one is opened (:mod:`helix_sae.models.checking`): one token a nucleotide,
no token depends on a later one, and the first site is what a token gives by itself, whatever stands around
it.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from helix_sae.errors import ConfigurationError, ModelError, UnknownSiteError
from helix_sae.models.batching import DEFAULT_TOKEN_BUDGET, length_batches
from helix_sae.models.checkpoints import files_of
from helix_sae.mrna.tokens import PAD_ID, VOCABULARY, CodonMarkers, TokenizedSequence, pad_batch

Edit = Callable[[Tensor], Tensor]
"""Replaces an activation of shape (batch, time, width) by another of the same shape."""

_LETTERS = "ACGUN"
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


class Cache(Protocol):
    """What a pass left behind, for :meth:`Model.resume`."""

    def rows(self, index: Int[Tensor, " n"]) -> Cache:
        """The cache of some sequences of the batch, repeats allowed."""
        ...


class Prefix(Protocol):
    """What the tokens before ``start`` hand on to those after, for :meth:`Model.resume_suffix`."""

    @property
    def start(self) -> int:
        """Number of tokens before the suffix."""
        ...

    def rows(self, index: Int[Tensor, " n"]) -> Prefix:
        """The states of some sequences of the batch, repeats allowed."""
        ...


class Head(NamedTuple):
    """A linear read-out that is kept with a model.

    Attributes
    ----------
    task : {"regression", "classification"}
    outputs : tuple of str
        Properties of a regression, classes of a classification.
    weight : float (n_outputs, width)
        Over what :meth:`Model.pool` of the model *as its head reads it* gives
        (:meth:`Model.as_read_by_head`).
    bias : float (n_outputs,)
    """

    task: Literal["regression", "classification"]
    outputs: tuple[str, ...]
    weight: Float[Tensor, "n_outputs width"]
    bias: Float[Tensor, " n_outputs"]


class Model(ABC):
    """A network and its sites.

    A *site* is the path of a module whose output is read or edited: ``layers.0.mixer`` is what that module
    gives, ``layers.0`` the residual stream after the block.

    Parameters
    ----------
    module : nn.Module
    sites : sequence of str
        Paths of modules that give an activation of shape (batch, time, width), alone or first in a tuple, in
        the order in which a pass reaches them. The first is what a token gives by itself, before tokens are
        mixed.
    default_sites : sequence of str, optional
        Those that are looked at when none is named; all but the first when absent.
    fingerprint : str
        Identifies the weights.

    Attributes
    ----------
    markers : tuple of str
        Of the class: with which codon markers it can be given sequences, the usual one first.
    vocabulary : mapping of letter to int
        Of the class: the model's own ids of ``ACGUN``, and of ``E`` where it knows codon markers.
    head : Head or None
        A read-out that is kept with the weights.
    """

    markers: ClassVar[tuple[CodonMarkers, ...]] = ("none",)
    vocabulary: ClassVar[Mapping[str, int]] = VOCABULARY
    head: Head | None = None

    def __init__(
        self,
        module: nn.Module,
        sites: Sequence[str],
        *,
        default_sites: Sequence[str] | None = None,
        fingerprint: str = "unsaved",
    ) -> None:
        self.module = module
        self.site_names = tuple(sites)
        self.default_sites = self.site_names[1:] if default_sites is None else tuple(default_sites)
        self.fingerprint = fingerprint
        self._edits: list[Mapping[str, Edit]] = []
        self._own_ids = _translation(type(self).__name__, self.vocabulary, self.markers)

    # What a model has to say.

    @abstractmethod
    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time hidden"]:
        """Last hidden states of right-padded sequences, differentiable; rows at padding mean nothing.

        ``ids`` are the model's own (``vocabulary``); padding has an id of its own vocabulary too.
        """

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a checkpoint, on the CPU and in its own precision; :meth:`place` does the rest.

        Raises
        ------
        ModelError
            If it cannot be read.
        """
        raise ModelError(
            f"{cls.__name__} says nowhere how {directory} is read: give it a classmethod load(directory)."
        )

    @classmethod
    def adopt(cls, made: object) -> Self | None:
        """The model inside an object that its own library has made; None where there is none of this kind."""
        return None

    @classmethod
    def files(cls, directory: Path) -> list[Path]:
        """The files of a checkpoint that decide what it computes; by default all its JSON and safetensors files.

        Raises
        ------
        ModelError
            If one is missing, or the weights are in no safe format.
        """
        return files_of(directory)

    def save(self, directory: Path) -> None:
        """Write a checkpoint that :meth:`load` reads.

        Raises
        ------
        ModelError
            If the model is only ever read.
        """
        raise ModelError(
            f"{type(self).__name__} cannot be written to {directory}: it has no method save(directory)."
        )

    # What follows from that; each may be said better.

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.module.parameters()).dtype

    @property
    def hidden_size(self) -> int:
        """Width of the last hidden states."""
        with torch.no_grad():
            return int(self.hidden(torch.tensor([[VOCABULARY["A"]]], device=self.device)).shape[-1])

    @property
    def embedding_size(self) -> int:
        """Width of what :meth:`pool` gives."""
        return self.hidden_size

    def place(self, device: str, dtype: torch.dtype) -> None:
        """Move the weights to a device and a precision, to be read and not trained."""
        self.module.to(device=device, dtype=dtype).eval().requires_grad_(False)

    def compile(self) -> None:
        """Let ``torch.compile`` at what the model computes; hooks on its sites must go on to work.

        Raises
        ------
        ConfigurationError
            If the model does not offer it.
        """
        raise ConfigurationError(f"{type(self).__name__} cannot be compiled; set compiled: false.")

    def untrained(self, seed: int) -> Model:
        """A model of the same architecture, device and precision that has learnt nothing.

        By default each tensor of weights is drawn anew, from a normal distribution with its own mean and
        standard deviation (Heap et al. 2025, arXiv:2501.17727).

        Parameters
        ----------
        seed : int
            The process's random state is left as it was.
        """
        twin = copy.deepcopy(self)
        twin.head, twin.fingerprint = None, f"untrained {seed}"
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in twin.module.parameters():
                drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                values = weight.double().cpu()
                weight.copy_(values.mean() + values.std(correction=0) * drawn)
        return twin

    def as_read_by_head(self) -> Model:
        """The model whose pool is what its :class:`Head` reads; usually the mean over nucleotides, and the model itself."""
        return self

    def next_token_logits(
        self, hidden: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch vocabulary"] | None:
        """Scores of the next token, numbered as tokens are here; None for a model that predicts none."""
        return None

    def check_sites(self, sites: Sequence[str]) -> None:
        """Make sure that every site exists.

        Raises
        ------
        UnknownSiteError
            Naming the unknown sites and those that exist.
        """
        unknown = [site for site in sites if site not in self.site_names]
        if unknown:
            raise UnknownSiteError(
                f"The model has no site {', '.join(map(repr, unknown))}; it has {', '.join(self.site_names)}."
            )

    def layer_of(self, site: str) -> int:
        """Number of a site's block, the first in its path; -1 where there is none."""
        self.check_sites([site])
        found = _NUMBER.search(site)
        return -1 if found is None else int(found.group(1))

    # Passes.

    def batches(
        self, tokens: Sequence[TokenizedSequence], token_budget: int = DEFAULT_TOKEN_BUDGET
    ) -> list[Int[np.ndarray, " batch"]]:
        """Index arrays of batches of nearly one length."""
        return length_batches(np.array([t.ids.size for t in tokens], dtype=np.int64), token_budget)

    def tensors(
        self, tokens: Sequence[TokenizedSequence]
    ) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
        """Token ids and nucleotide mask of a batch, right-padded, on the model's device."""
        ids, is_nucleotide = pad_batch(tokens)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(is_nucleotide).to(self.device)

    def hidden(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time hidden"]:
        """Last hidden states of tokens as :mod:`helix_sae.mrna.tokens` numbers them."""
        return self.forward(self.own_ids(ids))

    def own_ids(self, ids: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
        """The same tokens in the model's own numbers."""
        return ids if self._own_ids is None else self._own_ids.to(ids.device)[ids]

    def run(
        self, ids: Int[Tensor, "batch time"], edits: Mapping[str, Edit]
    ) -> Float[Tensor, "batch time hidden"]:
        """Last hidden states of a whole pass with edits at some sites: the plain twin of :meth:`resume`."""
        with self.edited(edits):
            return self.hidden(ids)

    @contextmanager
    def edited(self, edits: Mapping[str, Edit]) -> Iterator[None]:
        """Within the block, every pass replaces the activation at each named site by what its edit returns."""
        self.check_sites(list(edits))
        handles = [
            self.module.get_submodule(site).register_forward_hook(_hook(edit)) for site, edit in edits.items()
        ]
        self._edits.append(edits)
        try:
            yield
        finally:
            self._edits.pop()
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def capture(
        self, ids: Int[Tensor, "batch time"], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch time width"]]:
        """Activations at several sites, in one pass, without gradients.

        Raises
        ------
        UnknownSiteError
            If a site does not exist.
        """
        captured: dict[str, Tensor] = {}
        self.run(ids, {site: partial(record, captured, site) for site in sites})
        return {site: captured[site] for site in sites}

    def pool(
        self, hidden: Float[Tensor, "batch time hidden"], is_nucleotide: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch hidden"]:
        """Mean over nucleotide tokens, in at least float32: neither ``E`` nor padding counts."""
        hidden = widened(hidden)
        weights = is_nucleotide.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    @torch.no_grad()
    def embed(
        self,
        tokens: Sequence[TokenizedSequence],
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        on_batch: Callable[[int], None] | None = None,
    ) -> Float[np.ndarray, "n hidden"]:
        """Pooled last hidden states of each sequence, in the order of the input; float64 of a float64 model.

        Parameters
        ----------
        tokens : sequence of TokenizedSequence
        token_budget : int
            Tokens a batch.
        on_batch : callable, optional
            Called with the number of sequences of each finished batch.
        """
        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        out = np.empty((len(tokens), self.embedding_size), dtype=dtype)
        for index in self.batches(tokens, token_budget):
            ids, is_nucleotide = self.tensors([tokens[i] for i in index])
            out[index] = self.pool(self.hidden(ids), is_nucleotide).cpu().numpy()
            if on_batch is not None:
                on_batch(len(index))
        return out

    # Running on from a site.

    def cache(self, ids: Int[Tensor, "batch time"]) -> Any:
        """What :meth:`resume` needs (a :class:`Cache`); inside :meth:`edited`, that of the edited pass.

        Differentiable unless gradients are off.
        """
        seen: dict[str, Tensor] = {}
        self.run(ids, {site: partial(record, seen, site) for site in self.site_names})
        return PassCache(ids, seen)

    def at_site(self, site: str, cache: Any) -> Float[Tensor, "batch time width"]:
        """The activation at a site, from a cache."""
        self.check_sites([site])
        return cache.activations[site]

    def resume(
        self,
        site: str,
        value: Float[Tensor, "batch time width"],
        cache: Any,
        hooks: Mapping[str, Edit] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """Run on from a site.

        By default a whole pass, in which the sites before have their cached activations.

        Parameters
        ----------
        site : str
        value : float (batch, time, width)
            The activation to put there.
        cache : Cache
            Of the same batch. From the first site on only the value counts, and may have another number of
            tokens.
        hooks : mapping of site to edit, optional
            Edits at *later* sites.

        Returns
        -------
        float (batch, time, hidden)
            Last hidden states, equal to those of :meth:`run` with the same change. Differentiable.
        """
        self.check_sites([site])
        before = self.site_names[: self.site_names.index(site)]
        put = {name: _constant(cache.activations[name]) for name in before} | {site: _constant(value)}
        return self.run(_of_length(cache.ids, value.shape[1]), {**put, **(hooks or {})})

    # Running on over the end of the sequences only.

    def prefix_states(self, cache: Any, start: int) -> Any:
        """What the tokens before ``start`` hand on to those after (a :class:`Prefix`), for :meth:`resume_suffix`.

        By default the whole cache.

        Parameters
        ----------
        cache : Cache
            Of a whole pass, edited or not; its edits stay in force for the prefix.
        start : int
            First token that any later change touches, from 0 to the number of tokens, exclusive.

        Raises
        ------
        ModelError
            If there is no token from ``start`` on.
        """
        last = self.site_names[-1]
        value = self.at_site(last, cache)
        check_start(start, value.shape[1])
        return WholePrefix(start, cache, self.resume(last, value, cache)[:, :start])

    def resume_suffix(
        self,
        site: str,
        value: Float[Tensor, "n suffix width"],
        prefix: Any,
        hooks: Mapping[str, Edit] | None = None,
        changed: Bool[Tensor, "n suffix"] | None = None,
        still: StillTokens | None = None,
    ) -> Float[Tensor, "n suffix hidden"]:
        """Run on from a site over the tokens from ``prefix.start`` on only.

        By default :meth:`resume` over all of them.

        Parameters
        ----------
        site : str
        value : float (n, suffix, width)
            The activation to put there, at the tokens of the suffix.
        prefix : Prefix
            Of the same sequences: all of the batch, or those picked with its ``rows``. From the first site on
            the suffix may have another number of tokens than in the pass that it is from.
        hooks : mapping of site to edit, optional
            Edits at *later* sites; they see the suffix only.
        changed : bool (n, suffix), optional
            Tokens at which ``value`` is another than in the pass that the prefix is from: others need not be
            computed anew until tokens are mixed again. Not with hooks.
        still : StillTokens, optional
            Tokens that are the same in all passes that are given this object, whatever their hooks do, and in
            which no gradient is wanted: they need to be computed once only.

        Raises
        ------
        ValueError
            If ``changed`` is given with hooks.

        Returns
        -------
        float (n, suffix, hidden)
            Last hidden states of the suffix: those of :meth:`resume` when nothing changes before it.
            Differentiable.
        """
        if changed is not None and hooks:
            raise ValueError("Hooks may change any token: give either `changed` or `hooks`.")
        cache, start = prefix.picked(), prefix.start
        whole = torch.cat([self.at_site(site, cache)[:, :start], value], dim=1)
        behind = {name: partial(_edit_from, start, hook) for name, hook in (hooks or {}).items()}
        return self.resume(site, whole, cache, behind)[:, start:]

    def pool_suffix(
        self,
        hidden: Float[Tensor, "n suffix hidden"],
        prefix: Any,
        is_nucleotide: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "n hidden"]:
        """:meth:`pool` of whole sequences from a resumed suffix.

        Parameters
        ----------
        hidden : float (n, suffix, hidden)
            From :meth:`resume_suffix`.
        prefix : Prefix
            As given to it.
        is_nucleotide : bool (batch, time)
            Of the whole batch that :meth:`prefix_states` saw, before any ``rows``.
        """
        return self.pool(torch.cat([prefix.pick(prefix.before), hidden], dim=1), prefix.pick(is_nucleotide))


class PassCache(NamedTuple):
    """The tokens of a pass and its activations at all sites."""

    ids: Int[Tensor, "batch time"]
    activations: dict[str, Float[Tensor, "batch time width"]]

    def rows(self, index: Int[Tensor, " n"]) -> PassCache:
        """The cache of some sequences of the batch, repeats allowed."""
        return PassCache(self.ids[index], {site: x[index] for site, x in self.activations.items()})


class WholePrefix(NamedTuple):
    """The cache of whole sequences, and the last hidden states before a suffix of them.

    Attributes
    ----------
    start : int
    cache : Cache
    before : float (batch, start, hidden)
    index : int (n,), optional
        Rows of both that stand here; all of them when absent.
    """

    start: int
    cache: Any
    before: Float[Tensor, "batch start hidden"]
    index: Int[Tensor, " n"] | None = None

    def rows(self, index: Int[Tensor, " n"]) -> WholePrefix:
        """The states of some sequences of the batch, repeats allowed."""
        return self._replace(index=index if self.index is None else self.index[index])

    def picked(self) -> Any:
        """The cache of the rows that stand here."""
        return self.cache if self.index is None else self.cache.rows(self.index)

    def pick(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "n *rest"]:
        """The rows of an array of the whole batch that stand here."""
        return x if self.index is None else x[self.index]


class StillTokens:
    """Tokens of a suffix that are the same in several passes, and in which no gradient is wanted.

    That is, tokens before the first change of each row, where several rows share one suffix. What works token
    by token may compute them once, in the first pass, and have the later ones take over what it gave.

    Parameters
    ----------
    mask : bool (n, suffix)
        True where a token is still. A pass may have more or fewer tokens behind the last of them.
    """

    def __init__(self, mask: Bool[Tensor, "n suffix"]) -> None:
        self._mask = mask
        self._kept: dict[int, Tensor] = {}

    def through(
        self,
        k: int,
        layer: Callable[[Float[Tensor, "n suffix hidden"]], Float[Tensor, "n suffix hidden"]],
        hidden: Float[Tensor, "n suffix hidden"],
    ) -> Float[Tensor, "n suffix hidden"]:
        """What layer ``k``, or the part of it that works token by token, makes of the residual stream."""
        mask = nn.functional.pad(self._mask, (0, hidden.shape[1] - self._mask.shape[1])).flatten()
        still, moving = mask.nonzero().squeeze(1), (~mask).nonzero().squeeze(1)
        tokens = hidden.flatten(0, 1)
        if k not in self._kept:
            with torch.no_grad():
                self._kept[k] = layer(tokens[still].unsqueeze(0)).squeeze(0)
        moved = layer(tokens.index_select(0, moving).unsqueeze(0)).squeeze(0)
        out = moved.new_empty(tokens.shape)
        # In place: nobody has seen what stands there, and only what moves is differentiated.
        return out.index_copy_(0, still, self._kept[k]).index_copy_(0, moving, moved).view(hidden.shape)


def record(seen: dict[str, Tensor], site: str, activation: Tensor) -> Tensor:
    """An edit that changes nothing (once ``seen`` and ``site`` are bound): it notes the activation that it is given."""
    seen[site] = activation
    return activation


def widened(x: Tensor) -> Tensor:
    """The same in at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_start(start: int, time: int) -> None:
    """Make sure that a suffix has a token.

    Raises
    ------
    ModelError
        If there is none from ``start`` on.
    """
    if not 0 <= start < time:
        raise ModelError(
            f"A suffix of {time} tokens cannot start at token {start}; give a start from 0 to {time - 1}."
        )


def _hook(edit: Edit) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook: some modules give a tuple whose first element is the activation, others the activation itself."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        activation = output[0] if isinstance(output, tuple) else output
        edited = edit(widened(activation)).to(activation.dtype)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    return hook


def _constant(value: Tensor) -> Edit:
    return lambda _: value


def _edit_from(start: int, edit: Edit, activation: Tensor) -> Tensor:
    """An edit of the tokens from ``start`` on."""
    return torch.cat([activation[:, :start], edit(activation[:, start:])], dim=1)


def _of_length(ids: Int[Tensor, "batch time"], time: int) -> Int[Tensor, "batch time"]:
    """As many tokens; which they are does not matter from the first site on."""
    return (
        ids[:, :time]
        if time <= ids.shape[1]
        else nn.functional.pad(ids, (0, time - ids.shape[1]), value=PAD_ID)
    )


def _translation(
    name: str, vocabulary: Mapping[str, int], markers: tuple[CodonMarkers, ...]
) -> Int[Tensor, " ids"] | None:
    """The model's own id of each id of :data:`VOCABULARY`; None where they are the same.

    Padding becomes an ``N``.
    """
    wanted = [*_LETTERS, *("E" if "cds" in markers else "")]
    if missing := [letter for letter in wanted if letter not in vocabulary]:
        raise ModelError(f"{name}.vocabulary has no id for {', '.join(missing)}; give each letter one.")
    if all(vocabulary[letter] == VOCABULARY[letter] for letter in wanted):
        return None
    own = torch.full((max(VOCABULARY.values()) + 1,), vocabulary["N"], dtype=torch.int64)
    for letter in wanted:
        own[VOCABULARY[letter]] = vocabulary[letter]
    return own
