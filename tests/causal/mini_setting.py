"""The shipped helix_mini with autoencoders that are trained on it in seconds, for tests that need a real model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helix_sae.causal.alignment import TokenPair, align_table
from helix_sae.models.contract import StillTokens
from helix_sae.models.helix.loading import load_helix
from helix_sae.models.helix.model import HelixModel
from helix_sae.mrna.counterfactuals import counterfactual_pairs
from helix_sae.mrna.simulator import simulate_constructs
from helix_sae.mrna.tokens import TokenizedSequence, tokenize_table
from helix_sae.sae import ArrayBatches, SparseAutoencoder, TopKConfig, train_saes

MINI = Path(__file__).resolve().parents[2] / "data" / "06_models" / "helix_mini"
EDITS = ("uaug_make", "uaug_break")


class MiniSetting(NamedTuple):
    """A model, constructs that it has not seen, edits of some of them, autoencoders.

    Attributes
    ----------
    table : DataFrame
        Constructs with ``functional_mrl``, ``cluster`` and ``split`` (``discovery`` or ``validation``, by family).
    designs : DataFrame
        uAUGs made and broken, with shams, in the schema of :func:`helix_sae.mrna.counterfactuals.counterfactual_pairs`.
    """

    model: HelixModel
    table: pd.DataFrame
    designs: pd.DataFrame
    saes: dict[str, SparseAutoencoder]


def mini_setting(
    sites: Sequence[str],
    *,
    n: int = 480,
    features: int = 384,
    k: int = 16,
    n_per_kind: int = 60,
    epochs: int = 4,
) -> MiniSetting:
    """Load the model, simulate constructs, train autoencoders on the activations of those of discovery families."""
    model = load_helix(MINI, device="cpu")
    rng = np.random.default_rng(7)
    frame = simulate_constructs(n, rng, n_per_family=2)
    table = frame.assign(
        sequence_id=[f"c{i}" for i in range(n)],
        cluster=frame["family"].astype(str),
        functional_mrl=frame["mrl"],
    )
    families = table["cluster"].unique()
    held = set(rng.permutation(families)[: len(families) * 2 // 5])
    table["split"] = np.where(table["cluster"].isin(held), "validation", "discovery")
    designs = counterfactual_pairs(frame, rng, n_per_kind=n_per_kind, kinds=EDITS)
    discovery = table[table["split"] == "discovery"].reset_index(drop=True)
    config = TopKConfig(k=k, expansion_factor=features / model.hidden_size)
    arrays = activations(model, tokenize_table(discovery), sites)
    batches = ArrayBatches(arrays, 1024, seed=0, epochs=epochs)
    saes = train_saes(batches, {"topk": config}, seed=0).by_site()
    return MiniSetting(model, table, designs, saes)


def activations(
    model: HelixModel, tokens: Sequence[TokenizedSequence], sites: Sequence[str]
) -> dict[str, np.ndarray]:
    """Activations of all tokens, one row each."""
    parts: dict[str, list[np.ndarray]] = {site: [] for site in sites}
    for index in model.batches(tokens):
        ids, _ = model.tensors([tokens[i] for i in index])
        for site, values in model.capture(ids, sites).items():
            parts[site] += [values[row, : tokens[i].ids.size].numpy() for row, i in enumerate(index)]
    return {site: np.concatenate(rows) for site, rows in parts.items()}


def aligned(designs: pd.DataFrame) -> list[TokenPair]:
    """Designed pairs as tokens."""
    columns = {
        f"{side}_{name}": designs[source]
        for side in ("source", "target")
        for name, source in (("sequence", side), ("cds_start", "cds_start"), ("cds_end", "cds_end"))
    }
    return align_table(pd.DataFrame(columns))


class _Prefix(NamedTuple):
    inner: Any
    before: Tensor
    index: Tensor | None = None

    @property
    def start(self) -> int:
        return int(self.inner.start)

    def rows(self, index: Tensor) -> _Prefix:
        return _Prefix(self.inner.rows(index), self.before, index)

    def picked(self) -> Tensor:
        return self.before if self.index is None else self.before[self.index]


class ReadAtSite:
    """A model that is read at one of its sites: the activation there, through a linear map, is the last hidden state.

    Everything before the site is the model itself; nothing after it counts.
    """

    def __init__(self, model: HelixModel, site: str, linear: Tensor) -> None:
        self.inner, self.site, self.linear = model, site, linear
        self.site_names = model.site_names[: model.site_names.index(site) + 1]
        self.fingerprint = f"{model.fingerprint} read at {site}"
        self.device = model.device
        self.check_sites, self.capture, self.at_site = model.check_sites, model.capture, model.at_site
        self.cache, self.pool = model.cache, model.pool

    def edited(self, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> AbstractContextManager[None]:
        return self.inner.edited(edits)

    def _reading(self, go: Callable[[], Any]) -> Tensor:
        seen: list[Tensor] = []

        def read(activation: Tensor) -> Tensor:
            seen.append(activation)
            return activation

        with self.inner.edited({self.site: read}):
            go()
        return seen[-1] @ self.linear

    def run(self, ids: Tensor, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> Tensor:
        with self.inner.edited(edits):
            return self._reading(lambda: self.inner.hidden(ids))

    def resume(
        self,
        site: str,
        value: Tensor,
        cache: Any,
        hooks: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> Tensor:
        if site == self.site:
            return value @ self.linear
        with self.inner.edited(hooks or {}):
            return self._reading(lambda: self.inner.resume(site, value, cache))

    def prefix_states(self, cache: Any, start: int) -> _Prefix:
        before = self.inner.at_site(self.site, cache)[:, :start] @ self.linear
        return _Prefix(self.inner.prefix_states(cache, start), before)

    def resume_suffix(
        self,
        site: str,
        value: Tensor,
        prefix: _Prefix,
        hooks: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        changed: Tensor | None = None,
        still: StillTokens | None = None,
    ) -> Tensor:
        if site == self.site:
            return value @ self.linear
        with self.inner.edited(hooks or {}):
            return self._reading(
                lambda: self.inner.resume_suffix(site, value, prefix.inner, None, changed, still)
            )

    def pool_suffix(self, hidden: Tensor, prefix: _Prefix, is_nucleotide: Tensor) -> Tensor:
        mask = is_nucleotide if prefix.index is None else is_nucleotide[prefix.index]
        return self.inner.pool(torch.cat([prefix.picked(), hidden], dim=1), mask)
