"""Activations that are computed when they are read: to be stored, or for corpora whose activations fit nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from helix_sae.activations.activations import Activations, Part, Ranges, TokenRows
from helix_sae.activations.plan import DESCRIBED, ExtractionPlan
from helix_sae.activations.shards import draw_tokens
from helix_sae.mrna.tokens import TokenizedSequence


def stream_activations(plan: ExtractionPlan, *, keep: bool = True) -> Activations:
    """The activations of a plan, computed anew each time they are read.

    Parameters
    ----------
    plan : ExtractionPlan
    keep : bool
        Whether a dataset that is given them is to store them, or only to hand them on.
    """
    return Activations(StreamedShards(plan), keep=keep)


class StreamedShards:
    """The work of a plan, done when its rows are read; a :class:`~helix_sae.activations.activations.Source`."""

    name = "the model as it runs"
    is_stored = False

    def __init__(self, plan: ExtractionPlan) -> None:
        self.plan = plan
        described = plan.described()
        self.described: Mapping[str, Any] = {key: described[key] for key in DESCRIBED}
        self.sequence_ids = [name for spec in plan.shards for name in spec.sequence_ids]
        self.part_sizes: Int[np.ndarray, " n_parts"] = np.array([len(s.sequence_ids) for s in plan.shards])
        self._places = [(spec, i) for spec in plan.shards for i in range(len(spec.sequence_ids))]
        self.n_tokens: Int[np.ndarray, " n_sequences"] = np.array(
            [n for spec in plan.shards for n in spec.kept(plan.tokens_per_sequence)], dtype=np.int64
        )
        self._widths: dict[str, int] | None = None
        self._offsets = np.concatenate([[0], np.cumsum(self.n_tokens)])

    @property
    def widths(self) -> dict[str, int]:
        """Width of each site, found by computing the first sequence once."""
        if self._widths is None:
            first = self.read(self.plan.sites, [(0, int(self.n_tokens[0]))])
            self._widths = {site: int(values.shape[1]) for site, values in first.items()}
        return self._widths

    def token_rows(self, start: int, stop: int) -> TokenRows:
        """What the rows of a range stand for."""
        numbers = self._holding([(start, stop)])
        tokens = [self._tokens(number) for number in numbers]
        kept = [self._kept(number) for number in numbers]
        first = int(self._offsets[numbers[0]])
        columns = (
            kept,
            [t.nucleotide[k] for t, k in zip(tokens, kept, strict=True)],
            [t.is_nucleotide[k] for t, k in zip(tokens, kept, strict=True)],
        )
        return TokenRows(*(np.concatenate(column)[start - first : stop - first] for column in columns))

    def read(self, sites: Sequence[str], ranges: Ranges) -> dict[str, Float[np.ndarray, "rows width"]]:
        """Rows of some ranges, from one run of the model over the sequences that hold them."""
        numbers = self._holding(ranges)
        tokens = [self._tokens(number) for number in numbers]
        # Rows of the whole, and where the model's pass over these sequences has them.
        rows = np.concatenate([np.arange(self._offsets[n], self._offsets[n + 1]) for n in numbers])
        begins = np.cumsum([0, *(t.ids.size for t in tokens)])
        places = np.concatenate([b + self._kept(n) for b, n in zip(begins, numbers, strict=False)])
        wanted = np.concatenate([np.arange(start, stop) for start, stop in ranges])
        chosen = places[np.searchsorted(rows, wanted)]
        computed = self.plan.compute(tokens)
        return {site: computed[site][chosen] for site in sites}

    def works(self) -> list[StreamedPart]:
        """The work of each part."""
        return [StreamedPart(replace(self.plan, shards=(spec,))) for spec in self.plan.shards]

    def _holding(self, ranges: Ranges) -> list[int]:
        """Numbers of the sequences that hold some rows, ascending."""
        found: set[int] = set()
        for start, stop in ranges:
            first = int(np.searchsorted(self._offsets, start, side="right")) - 1
            found.update(range(first, int(np.searchsorted(self._offsets, stop))))
        return sorted(found)

    def _tokens(self, number: int) -> TokenizedSequence:
        spec, i = self._places[number]
        return spec.tokens([i])[0]

    def _kept(self, number: int) -> Int[np.ndarray, " rows"]:
        """Tokens of a sequence that are kept."""
        spec, i = self._places[number]
        return draw_tokens(spec.sequence_ids[i], spec.size(i), self.plan.tokens_per_sequence)


@dataclass(frozen=True)
class StreamedPart:
    """The work of one shard of a plan: :class:`~helix_sae.activations.activations.PartWork`."""

    plan: ExtractionPlan

    @property
    def key(self) -> str:
        """SHA-256 of everything that the part's values depend on."""
        return self.plan.shards[0].key

    @property
    def sequence_ids(self) -> Sequence[str]:
        """Sequences of the part."""
        return self.plan.shards[0].sequence_ids

    @property
    def n_tokens(self) -> Sequence[int]:
        """Kept tokens of each sequence."""
        return self.plan.shards[0].kept(self.plan.tokens_per_sequence)

    def __call__(self, sites: Sequence[str]) -> Part:
        """Run the model over the sequences of the part."""
        return stream_activations(self.plan).part(0, sites)
