"""The whole analysis as one object, for a notebook: activations, autoencoders and codes of a helical model.

The counterpart of the original project's quick example; the Kedro pipelines do the same with storage,
statistics and interventions around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import nn

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.models.registry import adopt
from helix_sae.mrna.tokens import VOCABULARY, TokenizedSequence
from helix_sae.sae import (
    AnySaeConfig,
    ArrayBatches,
    SparseAutoencoder,
    TokenCodes,
    encode_stream,
    parse_sae_config,
    train_saes,
)

if TYPE_CHECKING:
    from helix_sae.models.contract import Model

LayerFilter = Callable[[str, nn.Module], bool]
"""Takes a module's path and the module; true where activations are to be taken."""

_LETTER_IDS = frozenset(VOCABULARY.values())
_MARKER_ID = VOCABULARY["E"]


class AnalysisResult(NamedTuple):
    """What an analysis found.

    Attributes
    ----------
    saes : dict of site to SparseAutoencoder
        They take raw activations.
    codes : dict of site to TokenCodes
        Sparse codes of every token, sequence after sequence (ids ``"0"``, ``"1"``, ...).
    history, metrics : DataFrame
        Of the training, and on held-out sequences.
    embeddings : float32 (n_sequences, hidden)
        Mean-pooled over nucleotides.
    held_out : bool (n_sequences,)
        The sequences that the metrics are of; no autoencoder was trained on them. All false when none was
        held out, and the metrics are those of the training sequences.
    """

    saes: dict[str, SparseAutoencoder]
    codes: dict[str, TokenCodes]
    history: pd.DataFrame
    metrics: pd.DataFrame
    embeddings: Float[np.ndarray, "n_sequences hidden"]
    held_out: Bool[np.ndarray, " n_sequences"]


class SAEAnalysisPipeline:
    """Trains autoencoders on the activations of a helical model.

    The model is mended in place: helical's own Helix-mRNA does not even chain its layers.

    Parameters
    ----------
    model : helical HelixmRNA, or Model
    expansion_factor : float
        Features per dimension of the activations; 2 to 8 is usual.
    l1_coefficient : float
        Sparsity penalty of the ``relu`` architectures; 1e-4 to 1e-2 is usual.
    architecture : str
        ``relu``, ``relu_tied`` (the original's), ``topk`` ...
    batch_size : int
        Tokens a step.
    validation_fraction : float
        Share of the sequences, at least one, that is held out for the metrics; 0 trains and measures on all
        of them.
    seed : int
    **options
        Further fields of the architecture's configuration, e.g. ``k`` of ``topk``.

    Raises
    ------
    ModelError
        If the model is of no kind that is known here (:data:`helix_sae.models.registry.KINDS`).
    ConfigurationError
        If the options do not fit the architecture.
    """

    def __init__(
        self,
        model: Any,
        expansion_factor: float = 4,
        l1_coefficient: float = 1e-3,
        *,
        architecture: str = "relu",
        batch_size: int = 4096,
        validation_fraction: float = 0.1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if not 0 <= validation_fraction < 1:
            raise ConfigurationError(f"validation_fraction is {validation_fraction}; it has to be in [0, 1).")
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}; a step needs at least one token.")
        self.model: Model = adopt(model)
        self.config: AnySaeConfig = _config(architecture, expansion_factor, l1_coefficient, options)
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.seed = seed

    def sites(self, layer_filter: LayerFilter) -> list[str]:
        """Sites of the model that a layer filter takes.

        Raises
        ------
        ConfigurationError
            If it takes none.
        """
        chosen = [
            name
            for name in self.model.site_names
            if layer_filter(name, self.model.module.get_submodule(name))
        ]
        if not chosen:
            raise ConfigurationError(
                f"The layer filter takes none of the model's sites: {', '.join(self.model.site_names)}."
            )
        return chosen

    def run_full_analysis(
        self,
        dataset: Any,
        layer_filter: LayerFilter = lambda name, module: "mixer" in name.lower(),
        num_epochs: int = 100,
    ) -> AnalysisResult:
        """Extract, train, encode.

        Parameters
        ----------
        dataset : datasets.Dataset
            What ``model.process_data(sequences)`` returned.
        layer_filter : callable
            Takes a module's path and the module, and says whether it is a site; the mixers by default.
        num_epochs : int
            Passes over the training tokens.

        Raises
        ------
        ConfigurationError
            If the filter takes no site, or ``num_epochs`` is less than one.
        DataError
            If the dataset has no column ``input_ids`` or no row, or a row holds no nucleotide.
        """
        if num_epochs < 1:
            raise ConfigurationError(f"num_epochs is {num_epochs}; training needs at least one.")
        sites = self.sites(layer_filter)
        tokens = tokens_of_dataset(dataset)
        activations = self._extract(tokens, sites)
        lengths = np.array([t.ids.size for t in tokens])
        held_out = self._held_out(len(tokens))
        result = self._train(activations, np.repeat(held_out, lengths), num_epochs)
        saes = result.by_site()
        first = np.concatenate([[0], np.cumsum(lengths)])
        codes = {
            site: encode_stream(
                sae,
                (
                    (str(i), activations[site][first[i] : first[i + 1]], tokens[i].is_nucleotide)
                    for i in range(len(tokens))
                ),
                site=site,
            )
            for site, sae in saes.items()
        }
        return AnalysisResult(saes, codes, result.history, result.metrics, self.model.embed(tokens), held_out)

    def _extract(
        self, tokens: Sequence[TokenizedSequence], sites: Sequence[str]
    ) -> dict[str, Float[np.ndarray, "n_tokens hidden"]]:
        parts: dict[str, dict[int, np.ndarray]] = {site: {} for site in sites}
        for index in self.model.batches(tokens):
            ids, _ = self.model.tensors([tokens[i] for i in index])
            for site, values in self.model.capture(ids, sites).items():
                array = values.float().cpu().numpy()
                for row, i in enumerate(index):
                    parts[site][int(i)] = array[row, : tokens[i].ids.size]
        return {site: np.concatenate([of[i] for i in range(len(tokens))]) for site, of in parts.items()}

    def _held_out(self, n: int) -> Bool[np.ndarray, " n"]:
        chosen = np.zeros(n, dtype=bool)
        if self.validation_fraction > 0 and n > 1:
            size = min(n - 1, max(1, round(self.validation_fraction * n)))
            chosen[np.random.default_rng(self.seed).permutation(n)[:size]] = True
        return chosen

    def _train(
        self, activations: Mapping[str, np.ndarray], held_out: Bool[np.ndarray, " n_tokens"], num_epochs: int
    ) -> Any:
        training = {site: values[~held_out] for site, values in activations.items()}
        measured = (
            {site: values[held_out] for site, values in activations.items()} if held_out.any() else training
        )
        return train_saes(
            ArrayBatches(training, self.batch_size, self.seed, num_epochs),
            {"sae": self.config},
            seed=self.seed,
            holdout=ArrayBatches(measured, self.batch_size),
            device=str(self.model.device),
        )


def tokens_of_dataset(dataset: Any) -> list[TokenizedSequence]:
    """The sequences of a helical dataset, without ``[PAD]`` and ``[SEP]``.

    Parameters
    ----------
    dataset : datasets.Dataset
        With a column ``input_ids``; padded on either side.

    Raises
    ------
    DataError
        If the column is missing, there is no row, or a row holds no nucleotide.
    """
    if "input_ids" not in getattr(dataset, "column_names", ()):
        raise DataError(
            "The dataset has no column input_ids; pass what model.process_data(sequences) returned."
        )
    rows = [_tokens_of_row(np.asarray(row, dtype=np.int64), i) for i, row in enumerate(dataset["input_ids"])]
    if not rows:
        raise DataError("The dataset holds no sequence; give model.process_data at least one.")
    return rows


def _tokens_of_row(ids: Int[np.ndarray, " length"], row: int) -> TokenizedSequence:
    kept = ids[np.isin(ids, list(_LETTER_IDS))]
    is_nucleotide = kept != _MARKER_ID
    if not is_nucleotide.any():
        raise DataError(f"Row {row} of the dataset holds no nucleotide.")
    # A marker goes with the nucleotide that follows it; one at the very end, after which none does, with the
    # last.
    nucleotide = np.minimum(np.cumsum(is_nucleotide) - is_nucleotide, is_nucleotide.sum() - 1)
    return TokenizedSequence(kept, nucleotide.astype(np.int32), is_nucleotide)


def _config(
    architecture: str, expansion_factor: float, l1_coefficient: float, options: dict[str, Any]
) -> AnySaeConfig:
    penalised = {"l1_coefficient": l1_coefficient} if architecture.startswith("relu") else {}
    return parse_sae_config(  # pyright: ignore[reportReturnType]
        {"architecture": architecture, "expansion_factor": expansion_factor, **penalised, **options}
    )
