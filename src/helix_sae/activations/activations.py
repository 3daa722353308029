"""Activations of a model: one face for what is stored and for what is computed when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from helix_sae.batches import Batches
from helix_sae.errors import ConfigurationError, DataError, StoreError, UnknownSiteError

DEFAULT_BUFFER_ROWS = 65_536
_BLOCKS_PER_BUFFER = 64

Ranges = Sequence[tuple[int, int]]
"""Half-open ranges of rows of the whole."""


class TokenRows(NamedTuple):
    """What the rows of some activations stand for.

    Attributes
    ----------
    token : int32 (n,)
        The row's token within its sequence.
    nucleotide : int32 (n,)
        That token's nucleotide; for a codon marker the one that follows it.
    is_nucleotide : bool (n,)
        False at codon markers.
    """

    token: Int[np.ndarray, " n"]
    nucleotide: Int[np.ndarray, " n"]
    is_nucleotide: Bool[np.ndarray, " n"]


class SequenceActivations(NamedTuple):
    """One sequence at one site.

    Attributes
    ----------
    sequence_id : str
    activations : float32 (n_tokens, width)
    is_nucleotide : bool (n_tokens,)
        False at codon markers.
    """

    sequence_id: str
    activations: Float[np.ndarray, "n_tokens width"]
    is_nucleotide: Bool[np.ndarray, " n_tokens"]


class Part(NamedTuple):
    """Consecutive sequences.

    Attributes
    ----------
    sequence_ids : list of str
    offsets : int64 (n_sequences + 1,)
        Rows of sequence ``i`` are ``offsets[i]:offsets[i + 1]`` of the part.
    rows : TokenRows
    activations : dict of site -> float32 (n_tokens, width)
    """

    sequence_ids: list[str]
    offsets: Int[np.ndarray, " n_1"]
    rows: TokenRows
    activations: dict[str, Float[np.ndarray, "n_tokens width"]]


class PartWork(Protocol):
    """The work of one part: small and picklable, so that it can be done anywhere.

    Attributes
    ----------
    key : str
        SHA-256 of everything that the part's values depend on.
    sequence_ids : sequence of str
    n_tokens : sequence of int
        Kept tokens of each sequence.
    """

    @property
    def key(self) -> str:
        """SHA-256 of everything that the part's values depend on."""
        ...

    @property
    def sequence_ids(self) -> Sequence[str]:
        """Sequences of the part."""
        ...

    @property
    def n_tokens(self) -> Sequence[int]:
        """Kept tokens of each sequence."""
        ...

    def __call__(self, sites: Sequence[str]) -> Part:
        """Read the part, or run the model for it."""
        ...


class Source(Protocol):
    """Where activations come from. Rows are counted over all sequences, in their order.

    Attributes
    ----------
    name : str
        Named in messages.
    described : mapping
        ``fingerprint`` of the model, ``sites``, ``dtype``, ``precision``, ``codon_markers``,
        ``tokens_per_sequence``.
    widths : mapping of site -> int
    sequence_ids : list of str
    n_tokens : int64 (n_sequences,)
        Kept tokens of each sequence.
    part_sizes : int64 (n_parts,)
        Sequences of each part that is best read at once.
    is_stored : bool
        Whether any rows cost no more than these rows, so that they may be read in any order.
    """

    name: str
    sequence_ids: list[str]
    n_tokens: Int[np.ndarray, " n_sequences"]
    part_sizes: Int[np.ndarray, " n_parts"]
    is_stored: bool

    @property
    def described(self) -> Mapping[str, Any]:
        """What the values depend on."""
        ...

    @property
    def widths(self) -> Mapping[str, int]:
        """Width of each site."""
        ...

    def token_rows(self, start: int, stop: int) -> TokenRows:
        """What the rows of a range stand for."""
        ...

    def read(self, sites: Sequence[str], ranges: Ranges) -> dict[str, Float[np.ndarray, "rows width"]]:
        """Rows of some ranges, one range after another, as float32; perhaps a read-only view."""
        ...

    def works(self) -> Sequence[PartWork]:
        """The work of each part."""
        ...


class Activations:
    """Activations of a model at its sites, a row a token, those of one sequence after another.

    Parameters
    ----------
    source : Source
        Shards of a store (:func:`~helix_sae.activations.store.open_activations`), or a model that runs when
        rows are read (:func:`~helix_sae.activations.stream.stream_activations`).
    keep : bool
        Whether a dataset that is given them is to store them, or only to hand them on.

    Attributes
    ----------
    fingerprint : str
        Of the model.
    sites : tuple of str
    sequence_ids : list of str
    offsets : int64 (n_sequences + 1,)
        Rows of sequence ``i`` are ``offsets[i]:offsets[i + 1]``.
    """

    def __init__(self, source: Source, *, keep: bool = True) -> None:
        self.source = source
        self.keep = keep
        self.fingerprint = str(source.described["fingerprint"])
        self.sites: tuple[str, ...] = tuple(source.described["sites"])
        self.sequence_ids = source.sequence_ids
        self.offsets: Int[np.ndarray, " n_1"] = np.concatenate([[0], np.cumsum(source.n_tokens)])
        self._number = {name: i for i, name in enumerate(self.sequence_ids)}

    @property
    def n_tokens(self) -> int:
        """Kept tokens of all sequences."""
        return int(self.offsets[-1])

    @property
    def widths(self) -> dict[str, int]:
        """Width of each site."""
        return dict(self.source.widths)

    @property
    def described(self) -> dict[str, Any]:
        """What their values depend on besides the sequences: model, sites, dtype, precision, markers, draw of tokens."""
        return dict(self.source.described)

    def __len__(self) -> int:
        return len(self.sequence_ids)

    def __contains__(self, sequence_id: object) -> bool:
        return sequence_id in self._number

    def __repr__(self) -> str:
        return f"Activations({len(self)} sequences, {self.n_tokens} tokens, sites={self.sites})"

    def check_model(self, fingerprint: str) -> None:
        """Raise :class:`StoreError` unless the activations are of the model with this fingerprint."""
        if fingerprint != self.fingerprint:
            raise StoreError(
                f"{self.source.name}: these activations are of the model {self.fingerprint}, not of"
                f" {fingerprint}. Run the extraction with this model, or load the version that belongs to it"
                " (--load-versions)."
            )

    def check_finite(self) -> None:
        """Look at every stored activation once; what is computed when it is read is looked at then.

        Raises
        ------
        DataError
            Naming the site, the sequence and the token of the first one that is not finite.
        """
        for part in self.parts(self.sites) if self.source.is_stored else ():
            for site, values in part.activations.items():
                # A sum is finite only if all its terms are, and costs a fraction of looking at each.
                if np.isfinite(np.sum(values, dtype=np.float64)):
                    continue
                row = int(np.argmin(np.isfinite(values).all(axis=1)))
                place = int(np.searchsorted(part.offsets, row, side="right")) - 1
                raise DataError(
                    f"The activations of site {site} are not finite: sequence {part.sequence_ids[place]!r},"
                    f" token {row - int(part.offsets[place])} holds"
                    f" {values[row][~np.isfinite(values[row])][0]}. Extract them again, in float32 if they"
                    " overflowed a smaller type (extraction.dtype)."
                )

    def get(self, sequence_id: str, site: str) -> Float[np.ndarray, "n_tokens width"]:
        """Activations of one sequence at a site, a row a token; perhaps read-only."""
        self._check_sites([site])
        return self.source.read([site], [self._bounds(self._numbers([sequence_id])[0])])[site]

    def rows(self, sequence_id: str) -> TokenRows:
        """What the rows of one sequence stand for."""
        return self.source.token_rows(*self._bounds(self._numbers([sequence_id])[0]))

    def first_rows(self, sequence_ids: Sequence[str]) -> Int[np.ndarray, " n"]:
        """The row with which each of some sequences begins."""
        return self.offsets[self._numbers(sequence_ids)]

    def all_rows(self) -> TokenRows:
        """What every row stands for."""
        return self.source.token_rows(0, self.n_tokens)

    def parts(self, sites: Sequence[str]) -> Iterator[Part]:
        """Go through all sequences in order, some at a time, without a copy where shards lie on the local disk."""
        self._check_sites(sites)
        return (self.part(number, sites) for number in range(len(self.source.part_sizes)))

    def part(self, number: int, sites: Sequence[str]) -> Part:
        """One of the parts that :meth:`parts` goes through."""
        begin = int(self.source.part_sizes[:number].sum())
        end = begin + int(self.source.part_sizes[number])
        start, stop = int(self.offsets[begin]), int(self.offsets[end])
        return Part(
            self.sequence_ids[begin:end],
            self.offsets[begin : end + 1] - start,
            self.source.token_rows(start, stop),
            self.source.read(sites, [(start, stop)]),
        )

    def works(self) -> Sequence[PartWork]:
        """The work of each of these parts, to be spread by :mod:`helix_sae.engine`."""
        return self.source.works()

    @property
    def are_whole(self) -> bool:
        """Whether every token of every sequence is kept."""
        return self.described["tokens_per_sequence"] is None

    def sequences(self, site: str) -> Iterator[SequenceActivations]:
        """Go through all sequences of a site in order."""
        for part in self.parts([site]):
            for i, name in enumerate(part.sequence_ids):
                rows = slice(int(part.offsets[i]), int(part.offsets[i + 1]))
                yield SequenceActivations(name, part.activations[site][rows], part.rows.is_nucleotide[rows])

    def rows_at(
        self, sites: Sequence[str], rows: Int[np.ndarray, " n"]
    ) -> dict[str, Float[np.ndarray, "n width"]]:
        """Activations at some rows, in any order, in one pass over the parts that hold them.

        Parameters
        ----------
        sites : sequence of str
        rows : int (n,)
            Rows of the whole, each in ``0:n_tokens``; the same one may come twice.
        """
        self._check_sites(sites)
        if rows.size and (rows.min() < 0 or rows.max() >= self.n_tokens):
            raise DataError(f"Rows {rows.min()} to {rows.max()} were asked for; there are {self.n_tokens}.")
        order = np.argsort(rows, kind="stable")
        out = {site: np.empty((len(rows), self.widths[site]), dtype=np.float32) for site in sites}
        ends = self.offsets[np.cumsum(self.source.part_sizes)]
        cuts = np.searchsorted(rows[order], ends)
        first, start = 0, 0
        for last, end in zip(cuts.tolist(), ends.tolist(), strict=True):
            if last > first:
                places = order[first:last]
                for site, values in self.source.read(sites, [(start, end)]).items():
                    out[site][places] = values[rows[places] - start]
            first, start = last, end
        return out

    def mean(
        self, sites: Sequence[str], sequence_ids: Sequence[str] | None = None
    ) -> dict[str, Float[np.ndarray, " width"]]:
        """Mean activation of each site over the tokens of some sequences, in float64; one pass for all sites.

        Raises
        ------
        DataError
            If none of the sequences has a token.
        """
        wanted = np.zeros(len(self), dtype=bool)
        wanted[slice(None) if sequence_ids is None else self._numbers(sequence_ids)] = True
        n_rows = int(self.source.n_tokens[wanted].sum())
        if n_rows == 0:
            raise DataError("No sequence was chosen to take the mean activation of.")
        sums = {site: np.zeros(self.widths[site]) for site in sites}
        for part in self.parts(sites):
            chosen = [self._number[name] for name in part.sequence_ids]
            kept = np.repeat(wanted[chosen], np.diff(part.offsets)).astype(np.float64)
            for site in sites:
                sums[site] += kept @ part.activations[site]
        return {site: total / n_rows for site, total in sums.items()}

    def n_tokens_of(self, sequence_ids: Sequence[str] | None = None) -> int:
        """Kept tokens of some sequences."""
        if sequence_ids is None:
            return self.n_tokens
        return int(self.source.n_tokens[self._numbers(sequence_ids)].sum())

    def batches(
        self,
        sites: Sequence[str],
        batch_size: int,
        seed: int,
        epochs: int = 1,
        sequence_ids: Sequence[str] | None = None,
        buffer_rows: int = DEFAULT_BUFFER_ROWS,
    ) -> Batches:
        """Shuffled tokens for training, the same ones for all sites.

        Blocks of stored rows, or whole sequences of rows that are computed, are put in a random order; rows
        are drawn at random from a buffer of many of them. The order depends on the seed, the sequences and
        ``buffer_rows``, and for stored rows not on how they are divided into shards. Computed rows run the
        model again each epoch.

        Parameters
        ----------
        sites : sequence of str
        batch_size : int
            Rows of a batch. The last one of an epoch may have fewer: each row comes once an epoch.
        seed : int
        epochs : int
            How often all rows are gone through, in another order each time.
        sequence_ids : sequence of str, optional
            Only these (e.g. of one split).
        buffer_rows : int
            Bounds the memory: ``buffer_rows x width x 4`` bytes a site. If all rows fit, the shuffle is
            complete.

        Returns
        -------
        Batches
            Iterable as often as you like (the same batches each time), of known length; each batch is a dict
            of site -> new float32 array (batch, width).
        """
        self._check_sites(sites)
        if min(batch_size, epochs, buffer_rows) < 1:
            raise ConfigurationError(
                f"batch_size {batch_size}, epochs {epochs} and buffer_rows {buffer_rows} must each be at"
                " least 1."
            )
        chosen = np.arange(len(self)) if sequence_ids is None else np.sort(self._numbers(sequence_ids))
        if chosen.size == 0:
            raise DataError("No sequence was chosen to take batches of activations of.")
        if (np.diff(chosen) == 0).any():
            raise DataError(
                f"Sequence {self.sequence_ids[chosen[:-1][np.diff(chosen) == 0][0]]!r} was chosen twice."
            )
        return Batches(
            partial(self._chunks, tuple(sites), chosen, buffer_rows),  # pyright: ignore[reportArgumentType]
            n_tokens=int(self.source.n_tokens[chosen].sum()),
            batch_size=batch_size,
            seed=seed,
            epochs=epochs,
        )

    def _chunks(
        self,
        sites: Sequence[str],
        chosen: Int[np.ndarray, " n"],
        buffer_rows: int,
        rng: np.random.Generator,
    ) -> Iterator[dict[str, Float[np.ndarray, "rows width"]]]:
        """Rows of the chosen sequences, as many at a time as fill the buffer, in a random order."""
        groups = _blocks if self.source.is_stored else _whole_sequences
        for ranges in groups(self.offsets, chosen, buffer_rows, rng):
            yield self.source.read(sites, ranges)

    def _bounds(self, number: int) -> tuple[int, int]:
        return int(self.offsets[number]), int(self.offsets[number + 1])

    def _numbers(self, sequence_ids: Sequence[str]) -> Int[np.ndarray, " n"]:
        absent = [name for name in sequence_ids if name not in self._number]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(sequence_ids)} sequences have no activations; the first:"
                f" {absent[:5]}. Run the extraction for the present mrna_table."
            )
        return np.array([self._number[name] for name in sequence_ids], dtype=np.int64)

    def _check_sites(self, sites: Sequence[str]) -> None:
        unknown = [site for site in sites if site not in self.sites]
        if unknown or not sites:
            raise UnknownSiteError(
                f"There are no activations of site(s) {unknown}; there are {list(self.sites)}."
            )


def _blocks(
    offsets: Int[np.ndarray, " n_1"],
    chosen: Int[np.ndarray, " n"],
    buffer_rows: int,
    rng: np.random.Generator,
) -> Iterator[list[tuple[int, int]]]:
    """Blocks of the chosen sequences' rows in a random order, many at a time."""
    # Neighbours among the chosen are one run of rows.
    first = np.flatnonzero(np.r_[True, np.diff(chosen) > 1])
    last = np.r_[first[1:], len(chosen)] - 1
    starts = offsets[chosen[first]]
    ends = np.cumsum(offsets[chosen[last] + 1] - starts)
    n_rows, block = int(ends[-1]), max(1, buffer_rows // _BLOCKS_PER_BUFFER)
    order = rng.permutation(-(-n_rows // block)) * block
    for i in range(0, len(order), _BLOCKS_PER_BUFFER):
        begins = order[i : i + _BLOCKS_PER_BUFFER].tolist()
        yield [rows for at in begins for rows in _in_runs(starts, ends, at, min(at + block, n_rows))]


def _in_runs(
    starts: Int[np.ndarray, " n"], ends: Int[np.ndarray, " n"], start: int, stop: int
) -> Iterator[tuple[int, int]]:
    """Ranges of rows of the whole that a range among the rows of the runs is; ``ends`` count rows of the runs."""
    run = int(np.searchsorted(ends, start, side="right"))
    while start < stop:
        n_rows = min(stop, int(ends[run])) - start
        row = int(starts[run]) + start - (int(ends[run - 1]) if run else 0)
        yield row, row + n_rows
        start, run = start + n_rows, run + 1


def _whole_sequences(
    offsets: Int[np.ndarray, " n_1"],
    chosen: Int[np.ndarray, " n"],
    buffer_rows: int,
    rng: np.random.Generator,
) -> Iterator[list[tuple[int, int]]]:
    """The chosen sequences in a random order, as many at a time as fill the buffer."""
    group: list[tuple[int, int]] = []
    filled = 0
    for number in chosen[rng.permutation(len(chosen))].tolist():
        group.append((int(offsets[number]), int(offsets[number + 1])))
        filled += group[-1][1] - group[-1][0]
        if filled >= buffer_rows:
            yield group
            group, filled = [], 0
    if group:
        yield group
