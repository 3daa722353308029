"""Activations that are computed when they are read and never stored.

For corpora whose activations fit nowhere: the extraction node returns an :class:`ActivationStream` in place of its plan,
and the dataset hands it on to the other nodes of the run. It is read like an
:class:`~helix_sae.activations.store.ActivationStore`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from helix_sae.activations.plan import ExtractionPlan
from helix_sae.activations.shards import draw_tokens
from helix_sae.activations.store import (
    DEFAULT_BUFFER_ROWS,
    ShardRows,
    TokenRows,
    shuffled_batches,
)
from helix_sae.errors import ConfigurationError, DataError, StoreError, UnknownSiteError
from helix_sae.mrna.tokens import TokenizedSequence


class ActivationStream:
    """The activations of a plan, computed anew each time they are read.

    Attributes
    ----------
    fingerprint : str
        Of the model.
    sites : tuple of str
    sequence_ids : list of str
    offsets : int64 (n_sequences + 1,)
        Rows of sequence ``i`` are ``offsets[i]:offsets[i + 1]`` of the whole.
    n_tokens : int
        Kept tokens of all sequences.
    """

    def __init__(self, plan: ExtractionPlan) -> None:
        self.plan = plan
        self.fingerprint = plan.fingerprint
        self.sites = plan.sites
        self.sequence_ids = [name for spec in plan.shards for name in spec.sequence_ids]
        self._place = {name: (spec, i) for spec in plan.shards for i, name in enumerate(spec.sequence_ids)}
        limit = plan.tokens_per_sequence
        kept = [min(n, limit or n) for spec in plan.shards for n in spec.sizes()]
        self._kept = dict(zip(self.sequence_ids, kept, strict=True))
        self.offsets: Int[np.ndarray, " n_1"] = np.cumsum([0, *kept], dtype=np.int64)

    @cached_property
    def widths(self) -> dict[str, int]:
        """Width of each site, found by computing the first sequence."""
        first = self._compute([self.sequence_ids[0]], self.sites)
        return {site: int(first.activations[site].shape[1]) for site in self.sites}

    @property
    def n_tokens(self) -> int:
        """Kept tokens of all sequences."""
        return int(self.offsets[-1])

    def __len__(self) -> int:
        return len(self.sequence_ids)

    def __contains__(self, sequence_id: object) -> bool:
        return sequence_id in self._place

    def check_model(self, fingerprint: str) -> None:
        """Raise :class:`StoreError` unless the activations are of the model with this fingerprint."""
        if fingerprint != self.fingerprint:
            raise StoreError(f"These activations are of the model {self.fingerprint}, not of {fingerprint}.")

    def get(self, sequence_id: str, site: str) -> Float[np.ndarray, "n_tokens width"]:
        """Activations of one sequence at a site, a row a token."""
        return self._compute([sequence_id], [site]).activations[site]

    def rows(self, sequence_id: str) -> TokenRows:
        """What the rows of one sequence stand for."""
        return self._rows([sequence_id], [self._tokens(sequence_id)])[0]

    def all_rows(self) -> TokenRows:
        """What every row stands for."""
        parts = [self._rows(spec.sequence_ids, spec.tokens())[0] for spec in self.plan.shards]
        return TokenRows(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def iter_shards(self, sites: Sequence[str] | str) -> Iterator[ShardRows]:
        """Go through all sequences in order, some at a time."""
        names = [sites] if isinstance(sites, str) else list(sites)
        for spec in self.plan.shards:
            yield self._compute(spec.sequence_ids, names)

    def batches(
        self,
        sites: Sequence[str],
        batch_size: int,
        seed: int,
        epochs: int = 1,
        sequence_ids: Sequence[str] | None = None,
        buffer_rows: int = DEFAULT_BUFFER_ROWS,
    ) -> StreamedBatches:
        """Shuffled tokens for training, the same ones for all sites.

        Sequences are taken in a random order, as many as fill the buffer, and rows are drawn at random from it. Each
        epoch runs the model again. Parameters and result are those of
        :meth:`~helix_sae.activations.store.ActivationStore.batches`; the order is another one.
        """
        self._check_sites(sites)
        if min(batch_size, epochs, buffer_rows) < 1:
            raise ConfigurationError(
                f"batch_size {batch_size}, epochs {epochs} and buffer_rows {buffer_rows} must each be at least 1."
            )
        chosen = tuple(self.sequence_ids if sequence_ids is None else sequence_ids)
        if not chosen:
            raise DataError("No sequence was chosen to compute activations of.")
        self._check_ids(chosen)
        return StreamedBatches(self, tuple(sites), batch_size, seed, epochs, chosen, buffer_rows)

    def n_tokens_of(self, sequence_ids: Sequence[str] | None = None) -> int:
        """Kept tokens of some sequences."""
        if sequence_ids is None:
            return self.n_tokens
        self._check_ids(sequence_ids)
        return sum(self._kept[name] for name in sequence_ids)

    def compute(self, sequence_ids: Sequence[str], sites: Sequence[str]) -> dict[str, np.ndarray]:
        """Kept rows of some sequences, one after another."""
        return self._compute(sequence_ids, sites).activations

    def _compute(self, sequence_ids: Sequence[str], sites: Sequence[str]) -> ShardRows:
        self._check_sites(sites)
        self._check_ids(sequence_ids)
        tokens = [self._tokens(name) for name in sequence_ids]
        computed = self.plan.compute(tokens)
        rows, kept, offsets = self._rows(sequence_ids, tokens)
        return ShardRows(list(sequence_ids), offsets, rows, {site: computed[site][kept] for site in sites})

    def _tokens(self, sequence_id: str) -> TokenizedSequence:
        spec, i = self._place[sequence_id]
        return spec.tokens([i])[0]

    def _rows(
        self, sequence_ids: Sequence[str], tokens: Sequence[TokenizedSequence]
    ) -> tuple[TokenRows, Int[np.ndarray, " rows"], Int[np.ndarray, " n_1"]]:
        """What the kept rows are, which of all computed rows they are, and where each sequence begins."""
        limit = self.plan.tokens_per_sequence
        kept = [draw_tokens(name, t.ids.size, limit) for name, t in zip(sequence_ids, tokens, strict=True)]
        first = np.cumsum([0, *(t.ids.size for t in tokens)])
        rows = TokenRows(
            np.concatenate(kept),
            np.concatenate([t.nucleotide[k] for t, k in zip(tokens, kept, strict=True)]),
            np.concatenate([t.is_nucleotide[k] for t, k in zip(tokens, kept, strict=True)]),
        )
        chosen = np.concatenate([start + k for start, k in zip(first, kept, strict=False)])
        return rows, chosen, np.cumsum([0, *(k.size for k in kept)], dtype=np.int64)

    def _check_sites(self, sites: Sequence[str]) -> None:
        unknown = [site for site in sites if site not in self.sites]
        if unknown or not sites:
            raise UnknownSiteError(
                f"No activations are computed for site(s) {unknown}; there are {list(self.sites)}."
            )

    def _check_ids(self, sequence_ids: Sequence[str]) -> None:
        absent = [name for name in sequence_ids if name not in self._place]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(sequence_ids)} sequences are not in the plan: {absent[:5]}."
            )


@dataclass(frozen=True)
class StreamedBatches:
    """Shuffled batches of tokens computed on the way; made by :meth:`ActivationStream.batches`."""

    stream: ActivationStream
    sites: tuple[str, ...]
    batch_size: int
    seed: int
    epochs: int
    sequence_ids: tuple[str, ...]
    buffer_rows: int

    @property
    def n_tokens(self) -> int:
        """Rows of one epoch."""
        return self.stream.n_tokens_of(self.sequence_ids)

    def __len__(self) -> int:
        return self.epochs * -(-self.n_tokens // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Float[np.ndarray, "batch width"]]]:
        for epoch in range(self.epochs):
            rng = np.random.default_rng([self.seed, epoch])
            groups = self._groups(rng.permutation(len(self.sequence_ids)))
            chunks = (self.stream.compute(group, self.sites) for group in groups)
            yield from shuffled_batches(chunks, self.batch_size, rng)

    def _groups(self, order: Int[np.ndarray, " n"]) -> Iterator[list[str]]:
        """Sequences in the given order, as many at a time as fill the buffer."""
        group: list[str] = []
        filled = 0
        for i in order.tolist():
            group.append(self.sequence_ids[i])
            filled += self.stream.n_tokens_of([group[-1]])
            if filled >= self.buffer_rows:
                yield group
                group, filled = [], 0
        if group:
            yield group
