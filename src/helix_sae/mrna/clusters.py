"""Clusters of related sequences: what a split must not tear apart.

Clusters come from labels (a gene, a wild type) or from the sequences themselves. Similar sequences are found
in time linear in their number, after the idea of Linclust: each sequence is put into the bucket of each of
its k-mers (of long sequences, of those with the lowest hashes), and is compared within a bucket only with its
predecessor and with the member that has the most k-mers.

References
----------
Steinegger M, Söding J. Clustering huge protein sequence sets in linear time. Nat Commun. 2018;9:2542.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helix_sae.errors import ConfigurationError, DataError

ClusterBy = str
"""``"auto"``, ``"similarity"``, ``"none"``, or the name of a column whose labels are the clusters."""

AUTO_LABELS = ("cluster", "mother", "metadata_gene_id")
"""Columns tried in turn by ``"auto"``."""

KMER = 12
"""Long enough that two unrelated transcripts share next to none, short enough to survive a change every ten
letters."""
MIN_SHARED = 0.25
"""Share of the shorter sequence's k-mers (about 90 % identity) that makes two sequences relatives."""
SKETCH = 128
"""k-mers of a sequence that are put into buckets; the ones with the lowest hashes."""

_CODE = np.full(256, 4, dtype=np.uint8)
for _code, _letter in enumerate("ACGU"):
    _CODE[ord(_letter)] = _code


def assign_clusters(
    sequences: Sequence[str], labels: Mapping[str, Sequence[str | None]], by: ClusterBy = "auto"
) -> list[str]:
    """Name the cluster of each sequence.

    Parameters
    ----------
    sequences : sequence of str
        RNA letters, without constant flanks.
    labels : mapping
        Column name -> label of each sequence, None where the file has none.
    by : str
        A column of ``labels``; ``"similarity"``; ``"none"`` (each sequence by itself); or ``"auto"``: the
        first of :data:`AUTO_LABELS` with any label, else similarity. Where the chosen column has gaps,
        similarity joins the unlabelled sequences to each other and to labelled ones.

    Returns
    -------
    list of str
        A label where the cluster has one (the first, if similarity joined several), else
        ``similar_<number>``, numbered in order of appearance.

    Raises
    ------
    ConfigurationError
        If ``by`` is a column that the records do not have.
    """
    if by == "none":
        return [f"single_{i:06d}" for i in range(len(sequences))]
    chosen: Sequence[str | None] = [None] * len(sequences)
    if by == "auto":
        chosen = next((labels[n] for n in AUTO_LABELS if n in labels and any(labels[n])), chosen)
    elif by != "similarity":
        if by not in labels or not any(label is not None for label in labels[by]):
            raise ConfigurationError(
                f"cluster_by: {by!r} is not a column with labels; use 'auto', 'similarity', 'none' or one of "
                f"{[name for name, column in labels.items() if any(column)]}."
            )
        chosen = labels[by]
    if all(label is not None for label in chosen):
        return [str(label) for label in chosen]
    return _joined_names(similarity_components(sequences), chosen)


def similarity_components(
    sequences: Sequence[str], k: int = KMER, min_shared: float = MIN_SHARED, sketch: int = SKETCH
) -> Int[np.ndarray, " n"]:
    """Connected components of sequences that share k-mers.

    Parameters
    ----------
    sequences : sequence of str
        Letters ``ACGUN``; a k-mer with ``N`` counts for nothing. One shorter than ``k`` is related to its
        equals only.
    k : int, 1 to 31
    min_shared : float, in (0, 1]
        Two sequences are joined if they share at least this part of the distinct k-mers of the one that has
        fewer.
    sketch : int
        k-mers of each sequence that are put into buckets. Comparisons use all of them.

    Returns
    -------
    int64 (n,)
        Component of each sequence, numbered in order of first appearance. The same for the same input,
        always.
    """
    if not 1 <= k <= 31 or not 0 < min_shared <= 1:
        raise DataError(f"k must be in 1..31 and min_shared in (0, 1], not {k} and {min_shared}.")
    unique, member = _unique_in_order(sequences)
    kmers = [_kmers(sequence, k) for sequence in unique]
    pairs = _candidate_pairs(kmers, sketch)
    related = np.fromiter(
        (_shared(kmers[a], kmers[b]) >= min_shared for a, b in pairs), dtype=bool, count=len(pairs)
    )
    edges = pairs[related]
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(unique), len(unique)))
    _, component = connected_components(graph, directed=False)
    return _renumber(np.asarray(component, dtype=np.int64)[member])


def _unique_in_order(sequences: Sequence[str]) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """Distinct sequences in order of appearance, and which of them each sequence is."""
    number: dict[str, int] = {}
    member = np.fromiter(
        (number.setdefault(s, len(number)) for s in sequences), dtype=np.int64, count=len(sequences)
    )
    return list(number), member


def _kmers(sequence: str, k: int) -> Int[np.ndarray, " n_kmers"]:
    """Distinct k-mers of a sequence as sorted integers of two bits a letter."""
    codes = _CODE[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    if codes.size < k:
        return np.empty(0, dtype=np.int64)
    n = codes.size - k + 1
    packed = np.zeros(n, dtype=np.int64)
    valid = np.ones(n, dtype=bool)
    for offset in range(k):
        letter = codes[offset : offset + n]
        packed = (packed << 2) | (letter & 3)
        valid &= letter < 4
    return np.unique(packed[valid])


def _candidate_pairs(kmers: Sequence[Int[np.ndarray, " _"]], sketch: int) -> Int[np.ndarray, "pair 2"]:
    """Pairs worth comparing: neighbours within a bucket, and each member with the bucket's richest one."""
    sketches = [_lowest_hashes(values, sketch) for values in kmers]
    member = np.repeat(np.arange(len(kmers)), [s.size for s in sketches])
    if member.size == 0:
        return np.empty((0, 2), dtype=np.int64)
    bucket = np.concatenate(sketches)
    richness = np.array([values.size for values in kmers])[member]
    order = np.lexsort((member, -richness, bucket))
    bucket, member = bucket[order], member[order]
    first = np.r_[True, bucket[1:] != bucket[:-1]]
    centre = member[np.flatnonzero(first)][np.cumsum(first) - 1]
    later = np.flatnonzero(~first)
    pairs = np.concatenate(
        [
            np.stack([member[later - 1], member[later]], axis=1),
            np.stack([centre[later], member[later]], axis=1),
        ]
    )
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _lowest_hashes(values: Int[np.ndarray, " _"], size: int) -> Int[np.ndarray, " _"]:
    """The k-mers with the lowest hashes (all of them if few), so that relatives keep the same ones."""
    if values.size <= size:
        return values
    # Finaliser of SplitMix64 (Steele et al. 2014): a fixed mixing of the bits, wrapping by intention.
    mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return values[np.argpartition(mixed, size)[:size]]


def _shared(a: Int[np.ndarray, " _"], b: Int[np.ndarray, " _"]) -> float:
    """Share of the smaller set that is in the other one."""
    return np.intersect1d(a, b, assume_unique=True).size / min(a.size, b.size)


def _renumber(component: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[inverse]


def _joined_names(component: Int[np.ndarray, " n"], labels: Sequence[str | None]) -> list[str]:
    """Join components that share a label, and name each by its first label."""
    number: dict[str, int] = {}
    nodes = [i for i, label in enumerate(labels) if label is not None]
    label_node = [number.setdefault(str(labels[i]), len(number)) for i in nodes]
    n_components = int(component.max()) + 1 if component.size else 0
    size = n_components + len(number)
    graph = coo_array(
        (np.ones(len(nodes)), (component[nodes], n_components + np.array(label_node, dtype=np.int64))),
        shape=(size, size),
    )
    joined = np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)[component]
    joined = _renumber(joined)
    names: dict[int, str] = {}
    for i in nodes:
        names.setdefault(int(joined[i]), str(labels[i]))
    return [names.get(int(j), f"similar_{int(j):06d}") for j in joined]
