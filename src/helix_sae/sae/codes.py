"""Sparse codes of a corpus: token-level CSR written while streaming, and pools over each sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple, Protocol

import anndata
import numpy as np
import pandas as pd
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int

from helix_sae.errors import DataError
from helix_sae.names import feature_name
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.metrics import check_batch
from helix_sae.sae.stability import STABILITY_COLUMNS, unknown_stability

SequenceActivations = tuple[str, Float[np.ndarray, "t d_in"], Bool[np.ndarray, " t"]]

_POOL_BLOCK = 2**24
"""Largest dense block (sequences x features) of the pooling."""


@dataclass(frozen=True)
class TokenCodes:
    """Codes of every token of a corpus.

    Attributes
    ----------
    codes : csr_array float32 (n_tokens, d_sae)
        Columns ascending in each row, no stored zeros.
    offsets : int64 (n_sequences + 1,)
        Sequence ``i`` owns the rows ``offsets[i]:offsets[i + 1]``.
    sequence_id : str object array (n_sequences,)
        Names of the sequences.
    is_nucleotide : bool (n_tokens,)
        False at codon markers, which no pool counts.
    """

    codes: scipy.sparse.csr_array
    offsets: Int[np.ndarray, " n_sequences_plus_1"]
    sequence_id: np.ndarray
    is_nucleotide: Bool[np.ndarray, " n_tokens"]

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and features."""
        return self.codes.shape

    def parts(self) -> Iterator[TokenCodes]:
        """Go through all sequences in order: here they are one part."""
        yield self

    def at(self, rows: Int[np.ndarray, " n"]) -> scipy.sparse.csr_array:
        """Codes of some tokens, in any order."""
        return self.codes[rows]

    def columns(self, features: Sequence[int]) -> scipy.sparse.csc_array:
        """Codes of some features on every token (n_tokens, n_features)."""
        return scipy.sparse.csc_array(self.codes[:, np.asarray(features, dtype=np.int64)])

    def pooled(self) -> PooledCodes:
        """Mean and maximum over each sequence, and what the features' statistics are made of."""
        return PooledCodes(*pool_codes(self), FeatureSums.of(self.codes))


class SiteCodes(Protocol):
    """Codes of every token of a corpus at one site: in memory (:class:`TokenCodes`) or in a store."""

    @property
    def offsets(self) -> Int[np.ndarray, " n_sequences_plus_1"]:
        """Sequence ``i`` owns the rows ``offsets[i]:offsets[i + 1]``."""
        ...

    @property
    def sequence_id(self) -> np.ndarray:
        """Names of the sequences."""
        ...

    @property
    def is_nucleotide(self) -> Bool[np.ndarray, " n_tokens"]:
        """False at codon markers."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and features."""
        ...

    @property
    def codes(self) -> scipy.sparse.csr_array:
        """Codes of all tokens, in memory."""
        ...

    def parts(self) -> Iterator[TokenCodes]:
        """Go through all sequences in order, some at a time."""
        ...

    def at(self, rows: Int[np.ndarray, " n"]) -> scipy.sparse.csr_array:
        """Codes of some tokens, in any order."""
        ...

    def columns(self, features: Sequence[int]) -> scipy.sparse.csc_array:
        """Codes of some features on every token (n_tokens, n_features)."""
        ...

    def pooled(self) -> PooledCodes:
        """Mean and maximum over each sequence, and what the features' statistics are made of."""
        ...


class FeatureSums(NamedTuple):
    """What each feature's statistics are made of; those of two parts of a corpus add up.

    Attributes
    ----------
    n_tokens : int
    n_active : int64 (d_sae,)
        Tokens on which the feature is active.
    total : float64 (d_sae,)
        Sum of its codes.
    largest : float32 (d_sae,)
    """

    n_tokens: int
    n_active: Int[np.ndarray, " d_sae"]
    total: Float[np.ndarray, " d_sae"]
    largest: Float[np.ndarray, " d_sae"]

    @classmethod
    def of(cls, codes: scipy.sparse.csr_array) -> FeatureSums:
        """Sums over all tokens of a CSR."""
        d_sae = codes.shape[1]
        largest = torch.zeros(d_sae).scatter_reduce_(
            0, torch.from_numpy(codes.indices.astype(np.int64)), torch.from_numpy(codes.data), "amax"
        )
        return cls(
            codes.shape[0],
            np.bincount(codes.indices, minlength=d_sae),
            np.bincount(codes.indices, weights=codes.data, minlength=d_sae),
            largest.numpy(),
        )

    def joined(self, other: FeatureSums) -> FeatureSums:
        """Sums over both parts."""
        return FeatureSums(
            self.n_tokens + other.n_tokens,
            self.n_active + other.n_active,
            self.total + other.total,
            np.maximum(self.largest, other.largest),
        )

    def table(self) -> pd.DataFrame:
        """Density, maximum, means and liveness of each feature."""
        counts, n = self.n_active, max(1, self.n_tokens)
        return pd.DataFrame(
            {
                "feature": np.arange(len(counts)),
                "density": counts / n,
                "max_activation": self.largest.astype(np.float64),
                "mean": self.total / n,
                "mean_when_active": np.divide(
                    self.total, counts, out=np.zeros(len(counts)), where=counts > 0
                ),
                "alive": counts > 0,
            }
        )


class PooledCodes(NamedTuple):
    """Codes pooled over each sequence's nucleotides.

    Attributes
    ----------
    mean, maximum : csr_array float32 (n_sequences, d_sae)
    sums : FeatureSums
        Over all tokens.
    """

    mean: scipy.sparse.csr_array
    maximum: scipy.sparse.csr_array
    sums: FeatureSums


def join_pooled(parts: Iterable[PooledCodes]) -> PooledCodes:
    """Pooled codes of a corpus from those of its parts."""
    listed = list(parts)
    return PooledCodes(
        scipy.sparse.csr_array(scipy.sparse.vstack([part.mean for part in listed], format="csr")),
        scipy.sparse.csr_array(scipy.sparse.vstack([part.maximum for part in listed], format="csr")),
        reduce(FeatureSums.joined, (part.sums for part in listed)),
    )


def nucleotide_of_tokens(
    is_nucleotide: Bool[np.ndarray, " n_tokens"], offsets: Int[np.ndarray, " n_sequences_plus_1"]
) -> Int[np.ndarray, " n_tokens"]:
    """Nucleotide of each token within its sequence, int32; for a codon marker the one that follows it.

    Parameters
    ----------
    is_nucleotide : bool (n_tokens,)
        Of all tokens of the sequences.
    offsets : int (n_sequences + 1,)
        Where each sequence's tokens start.
    """
    before = np.concatenate([[0], np.cumsum(is_nucleotide)])
    within = before[:-1] - np.repeat(before[offsets[:-1]], np.diff(offsets))
    return within.astype(np.int32)


def encode_stream(
    sae: SparseAutoencoder,
    sequences: Iterable[SequenceActivations],
    *,
    chunk_tokens: int = 8_192,
    site: str = "the data",
) -> TokenCodes:
    """Encode a corpus sequence by sequence; memory holds one chunk of activations and the sparse codes.

    Parameters
    ----------
    sae : SparseAutoencoder
        The SAE of the site.
    sequences : iterable of (sequence_id, activations (t, d_in), is_nucleotide (t,))
        Raw activations; any order, kept.
    chunk_tokens : int
        Tokens encoded at a time.
    site : str
        Named in messages.

    Raises
    ------
    DataError
        If widths or lengths do not fit, a value is not finite, a name comes twice, or there is no sequence.
    """
    writer = _CsrWriter(sae, site)
    pending: list[np.ndarray] = []
    waiting = 0
    names: list[str] = []
    lengths: list[int] = []
    masks: list[np.ndarray] = []
    for name, activations, is_nucleotide in sequences:
        if len(activations) != len(is_nucleotide):
            raise DataError(
                f"Sequence {name} at {site} has {len(activations)} activations but {len(is_nucleotide)} token"
                " flags; extract it again."
            )
        names.append(str(name))
        lengths.append(len(activations))
        masks.append(np.asarray(is_nucleotide, dtype=bool))
        pending.append(np.asarray(activations))
        waiting += len(activations)
        if waiting >= chunk_tokens:
            writer.add(np.concatenate(pending))
            pending, waiting = [], 0
    if not names:
        raise DataError(f"There is no sequence to encode at {site}.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"Sequence {twice} comes more than once at {site}; names must be unique.")
    if waiting:
        writer.add(np.concatenate(pending))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenCodes(writer.finish(), offsets, np.array(names, dtype=object), np.concatenate(masks))


class _CsrWriter:
    """Collects chunks of codes as CSR parts."""

    def __init__(self, sae: SparseAutoencoder, site: str) -> None:
        self.sae = sae
        self.site = site
        self.data: list[np.ndarray] = []
        self.indices: list[np.ndarray] = []
        self.counts: list[np.ndarray] = []

    def add(self, x: Float[np.ndarray, "n d_in"]) -> None:
        active = self.sae.encode_active(check_batch(torch.from_numpy(x), self.sae.d_in, self.site))
        parts = (active.codes.numpy(), active.features.numpy().astype(np.int32), active.offsets.numpy())
        part = scipy.sparse.csr_array(parts, shape=(x.shape[0], self.sae.d_sae))
        part.eliminate_zeros()
        part.sort_indices()
        self.data.append(part.data)
        self.indices.append(part.indices.astype(np.int32, copy=False))
        self.counts.append(np.diff(part.indptr))

    def finish(self) -> scipy.sparse.csr_array:
        counts = np.concatenate(self.counts) if self.counts else np.zeros(0, dtype=np.int64)
        indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        data = np.concatenate(self.data) if self.data else np.zeros(0, dtype=np.float32)
        indices = np.concatenate(self.indices) if self.indices else np.zeros(0, dtype=np.int32)
        return scipy.sparse.csr_array((data, indices, indptr), shape=(counts.size, self.sae.d_sae))


def pool_codes(token_codes: TokenCodes) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Mean and maximum of each sequence's codes over its nucleotide tokens.

    Returns
    -------
    mean, maximum : csr_array float32 (n_sequences, d_sae)
        Rows of a sequence without nucleotide tokens are empty.
    """
    means: list[scipy.sparse.csr_array] = []
    maxima: list[scipy.sparse.csr_array] = []
    n_sequences = token_codes.sequence_id.size
    block = max(1, _POOL_BLOCK // max(1, token_codes.codes.shape[1]))
    for start in range(0, n_sequences, block):
        mean, maximum = _pool_block(token_codes, start, min(n_sequences, start + block))
        means.append(mean)
        maxima.append(maximum)
    return (
        scipy.sparse.csr_array(scipy.sparse.vstack(means, format="csr")),
        scipy.sparse.csr_array(scipy.sparse.vstack(maxima, format="csr")),
    )


def _pool_block(
    token_codes: TokenCodes, start: int, stop: int
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    d_sae = token_codes.codes.shape[1]
    offsets = token_codes.offsets[start : stop + 1]
    rows = slice(int(offsets[0]), int(offsets[-1]))
    counted = token_codes.is_nucleotide[rows]
    sequence = np.repeat(np.arange(stop - start), np.diff(offsets))
    n_counted = np.bincount(sequence[counted], minlength=stop - start)

    indptr = token_codes.codes.indptr[rows.start : rows.stop + 1]
    pairs = slice(int(indptr[0]), int(indptr[-1]))
    token = np.repeat(np.arange(counted.size), np.diff(indptr))
    kept = counted[token]
    cell = sequence[token][kept].astype(np.int64) * d_sae + token_codes.codes.indices[pairs][kept]
    values = token_codes.codes.data[pairs][kept]

    shape = (stop - start, d_sae)
    total = np.bincount(cell, weights=values, minlength=shape[0] * d_sae).reshape(shape)
    mean = (total / np.maximum(n_counted, 1)[:, None]).astype(np.float32)
    largest = torch.zeros(shape[0] * d_sae)
    largest.scatter_reduce_(0, torch.from_numpy(cell), torch.from_numpy(values), "amax")
    return scipy.sparse.csr_array(mean), scipy.sparse.csr_array(largest.numpy().reshape(shape))


def sequence_anndata(
    token_codes: SiteCodes,
    table: pd.DataFrame,
    sae: SparseAutoencoder,
    feature_statistics: pd.DataFrame | None = None,
    uns: Mapping[str, str] | None = None,
    *,
    site: str = "",
    wide: Mapping[str, str] | None = None,
) -> anndata.AnnData:
    """Gather the pooled codes of a site with what is known of its sequences and features.

    Parameters
    ----------
    token_codes : SiteCodes
        Codes of the corpus at one site.
    table : DataFrame
        mRNA table with ``sequence_id``; rows of other sequences are left out.
    sae : SparseAutoencoder
        The SAE that made the codes.
    feature_statistics : DataFrame, optional
        One row a feature (:attr:`SaeEvaluation.features`); default: computed from all tokens of
        ``token_codes``.
    uns : mapping of str to str, optional
        Configuration and hashes to keep with it.
    site : str
        Of the codes; features are named after it, so that names are unique over sites.
    wide : mapping of str to str, optional
        Names in ``obsm`` -> prefix of the table's columns that go there, so that ``obs`` stays readable.

    Returns
    -------
    AnnData
        ``X`` mean-pooled CSR, ``layers["max"]``, ``obs`` the table's columns, ``obsm`` those of ``wide``,
        ``var`` the feature statistics and stability by the features' names (``L4.mixer.466``),
        ``varm["decoder"]`` (d_sae, d_in), ``uns`` strings.

    Raises
    ------
    DataError
        If a sequence is missing from the table.
    """
    by_name = table.set_index("sequence_id", drop=False)
    missing = [name for name in token_codes.sequence_id if name not in by_name.index]
    if missing:
        raise DataError(
            f"{len(missing)} encoded sequences, {missing[0]!r} among them, are not in the mRNA table: "
            "activations and table come from different runs; extract again."
        )
    mean, maximum, sums = token_codes.pooled()
    obs = plain_columns(by_name.loc[list(token_codes.sequence_id)])
    obs.index = pd.Index(token_codes.sequence_id.astype(str))
    var = with_stability(sums.table() if feature_statistics is None else feature_statistics, sae)
    var.index = pd.Index(
        [feature_name(site, feature) if site else str(feature) for feature in range(sae.d_sae)]
    )
    groups = {
        name: [c for c in obs.columns if str(c).startswith(prefix)] for name, prefix in (wide or {}).items()
    }
    moved = [column for columns in groups.values() for column in columns]
    result = anndata.AnnData(X=scipy.sparse.csr_matrix(mean), obs=obs.drop(columns=moved), var=var)
    for name, columns in groups.items():
        if columns:
            result.obsm[name] = obs[columns]
    result.layers["max"] = scipy.sparse.csr_matrix(maximum)
    result.varm["decoder"] = sae.W_dec.detach().numpy().copy()
    result.uns.update({key: str(value) for key, value in (uns or {}).items()})
    return result


def with_stability(features: pd.DataFrame, sae: SparseAutoencoder) -> pd.DataFrame:
    """Put the stability of an SAE's features beside what is known of them; "unknown" where no other seed was there."""
    known = unknown_stability(np.ones(sae.d_sae, dtype=bool)) if sae.stability is None else sae.stability
    columns = {name: known[name].to_numpy() for name in STABILITY_COLUMNS}
    return features.assign(**columns)


def plain_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Columns in the types that AnnData's file formats keep: floats with NaN, booleans, integers, plain strings."""
    columns: dict[str, np.ndarray | pd.Categorical] = {}
    for name in table.columns:
        column = table[name]
        if pd.api.types.is_bool_dtype(column) and not column.isna().any():
            columns[str(name)] = column.to_numpy(dtype=bool)
        elif pd.api.types.is_numeric_dtype(column):
            whole = pd.api.types.is_integer_dtype(column) and not column.isna().any()
            columns[str(name)] = column.to_numpy(
                dtype=np.int64 if whole else np.float64, na_value=0 if whole else np.nan
            )
        else:
            columns[str(name)] = pd.Categorical(
                column.astype("string").astype(object).where(column.notna(), None)
            )
    return pd.DataFrame(columns, index=table.index)
