"""Ranks of sparse columns, and their products with dense vectors.

Every rank test of this package is a sum over sequences of (rank of the feature) x (something about the
property): the rank of the property for Spearman, the indicator of a class for Mann-Whitney and
Kruskal-Wallis, a residual for the partial correlation. The columns are sparse, all their zeros share one
tied rank, and so only the non-zeros have to be visited:

    sum_i r_i y_i  =  sum_{i: x_i != 0} (r_i - r_0) y_i  +  r_0 sum_i y_i

The columns are sorted once (:func:`sort_columns`); missing labels, splits, sources and permutations only
change which rows count (``mask``) and what the ranks are multiplied with, and reuse that order
(:func:`rank_products`). All ranks are multiples of one half, so that sums of products of ranks are exact in
double precision up to about 10^5 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float
from numba.core import config as numba_config
from scipy import sparse, stats

from helix_sae.errors import AnalysisError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_WORTH_A_THREAD = 200_000  # non-zeros


class SortedColumns(NamedTuple):
    """The non-zeros of a sparse matrix, column by column, by rising value.

    Attributes
    ----------
    indptr : int64 (n_columns + 1,)
        Where each column's non-zeros start.
    rows : int32 (n_nonzeros,)
        Row of each non-zero; within a column by rising value, ties by rising row.
    leads : bool (n_nonzeros,)
        True where a group of tied values starts.
    n_negative : int64 (n_columns,)
        How many of the column's non-zeros are below zero (they come first).
    n_rows : int
        Number of rows, zeros included.
    values : float32 or float64 (n_nonzeros,)
        Value of each non-zero, in the same order.
    """

    indptr: IntArray
    rows: npt.NDArray[np.int32]
    leads: BoolArray
    n_negative: IntArray
    n_rows: int
    values: npt.NDArray[Any]

    @property
    def n_columns(self) -> int:
        """Number of columns (features)."""
        return len(self.indptr) - 1


class RankProducts(NamedTuple):
    """What the rank tests need of each column.

    Attributes
    ----------
    products : float64 (n_columns, n_vectors)
        Sum over rows of (rank - rank of zero) x vector; the sum over rows of (rank - mean rank) x vector
        when the vector sums to zero.
    zero_rank : float64 (n_columns,)
        Mid-rank of the zeros (the rank that they would have where there are none).
    tie_term : float64 (n_columns,)
        Sum over groups of tied values (zeros included) of t^3 - t.
    n_rows : int
        Number of rows that counted.
    """

    products: FloatArray
    zero_rank: FloatArray
    tie_term: FloatArray
    n_rows: int

    def sum_of_squares(self) -> FloatArray:
        """Sum of squared deviations of the ranks from their mean, one value a column."""
        n = float(self.n_rows)
        return (n**3 - n - self.tie_term) / 12.0


@numba.njit(cache=True, nogil=True)
def _radix_sort(keys: Any, spare: Any, counts: Any) -> None:  # pragma: no cover - compiled
    """Sort 64-bit keys in place by their upper 32 bits; stable, hence by their lower bits within ties."""
    n = keys.shape[0]
    for pass_ in range(3):
        shift = np.uint64(32 + 11 * pass_)
        counts[:] = 0
        for i in range(n):
            counts[(keys[i] >> shift) & np.uint64(2047)] += 1
        if counts[(keys[0] >> shift) & np.uint64(2047)] == n:
            continue  # all keys share this digit
        total = 0
        for b in range(2048):
            count = counts[b]
            counts[b] = total
            total += count
        for i in range(n):
            digit = (keys[i] >> shift) & np.uint64(2047)
            spare[counts[digit]] = keys[i]
            counts[digit] += 1
        keys[:] = spare[:n]


@numba.njit(cache=True, nogil=True)
def _column_sizes(data: Any, indices: Any, n_columns: int) -> Any:  # pragma: no cover - compiled
    """Non-zeros of each column; the last entry counts values that are not finite."""
    sizes = np.zeros(n_columns + 1, dtype=np.int64)
    for i in range(data.shape[0]):
        if not np.isfinite(data[i]):
            sizes[n_columns] += 1
        elif data[i] != 0:
            sizes[indices[i]] += 1
    return sizes


@numba.njit(cache=True, nogil=True)
def _scatter_float32(
    row_pointer: Any, indices: Any, data: Any, bits: Any, indptr: Any
) -> Any:  # pragma: no cover - compiled
    """Scatter (value, row) of a CSR matrix to its columns as one 64-bit key each."""
    n_columns = indptr.shape[0] - 1
    keys = np.empty(indptr[n_columns], dtype=np.uint64)
    fill = indptr[:-1].copy()
    for row in range(row_pointer.shape[0] - 1):
        for i in range(row_pointer[row], row_pointer[row + 1]):
            if data[i] != 0:
                # the bit pattern of a float, made to rise with its value over the whole real line
                value = bits[i]
                value = ~value if value >> np.uint32(31) else value | np.uint32(0x80000000)
                column = indices[i]
                keys[fill[column]] = (np.uint64(value) << np.uint64(32)) | np.uint64(row)
                fill[column] += 1
    return keys


@numba.njit(cache=True, nogil=True)
def _sort_float32(
    keys: Any, indptr: Any, first: int, last_column: int, rows: Any, leads: Any, n_negative: Any
) -> None:  # pragma: no cover - compiled
    """Sort the keys of some columns, and fill in what they say."""
    widest = 0
    for column in range(first, last_column):
        widest = max(widest, indptr[column + 1] - indptr[column])
    spare = np.empty(widest, dtype=np.uint64)
    counts = np.empty(2048, dtype=np.int64)
    for column in range(first, last_column):
        start, stop = indptr[column], indptr[column + 1]
        if stop - start >= 256:
            _radix_sort(keys[start:stop], spare, counts)
        elif stop - start > 1:
            keys[start:stop].sort()
        last = np.uint64(0)  # no finite non-zero value has this pattern
        for i in range(start, stop):
            value = keys[i] >> np.uint64(32)
            rows[i] = np.int32(keys[i] & np.uint64(0xFFFFFFFF))
            leads[i] = value != last
            last = value
            if value < np.uint64(0x80000000):
                n_negative[column] += 1


@numba.njit(cache=True, nogil=True)
def _sort_float64(
    row_pointer: Any, indices: Any, data: Any, indptr: Any
) -> Any:  # pragma: no cover - compiled
    """The same for values that float32 cannot hold; slower."""
    n_columns = indptr.shape[0] - 1
    values = np.empty(indptr[n_columns], dtype=np.float64)
    rows = np.empty(indptr[n_columns], dtype=np.int32)
    fill = indptr[:-1].copy()
    for row in range(row_pointer.shape[0] - 1):
        for i in range(row_pointer[row], row_pointer[row + 1]):
            if data[i] != 0:
                column = indices[i]
                values[fill[column]] = data[i]
                rows[fill[column]] = row
                fill[column] += 1
    leads = np.empty(values.shape[0], dtype=np.bool_)
    n_negative = np.zeros(n_columns, dtype=np.int64)
    for column in range(n_columns):
        start, stop = indptr[column], indptr[column + 1]
        order = np.argsort(values[start:stop], kind="mergesort")
        by_value = values[start:stop][order]
        rows[start:stop] = rows[start:stop][order]
        for i in range(stop - start):
            leads[start + i] = i == 0 or by_value[i] != by_value[i - 1]
            if by_value[i] < 0:
                n_negative[column] += 1
        values[start:stop] = by_value
    return rows, leads, n_negative, values


def _in_threads(work: Callable[[int, int], None], indptr: IntArray) -> None:
    """Do ``work(first, last)`` on blocks of columns with about the same number of non-zeros, one a thread.

    Columns know nothing of each other, so the result is the same on any number of threads; the compiled loops let go
    of the interpreter. Numba's own threads are not used: they cannot be entered from several threads at once.
    """
    # The attribute is set when Numba reads its environment.
    n_threads = min(numba_config.NUMBA_NUM_THREADS, len(indptr) - 1)  # pyright: ignore[reportAttributeAccessIssue]
    if n_threads < 2 or indptr[-1] < _WORTH_A_THREAD:
        work(0, len(indptr) - 1)
        return
    bounds = np.searchsorted(indptr, np.linspace(0, indptr[-1], n_threads + 1)[1:-1])
    borders = [0, *bounds.tolist(), len(indptr) - 1]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, borders[:-1], borders[1:]))


def sort_columns(matrix: Any) -> SortedColumns:
    """Sort the non-zeros of every column once.

    Parameters
    ----------
    matrix : scipy sparse matrix or array, or dense array, (n_rows, n_columns)
        Real values; zeros are what is not stored. Explicitly stored zeros are treated as zeros.

    Returns
    -------
    SortedColumns

    Raises
    ------
    AnalysisError
        If a stored value is NaN or infinite.
    """
    csr = sparse.csr_array(matrix)
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    n_rows, n_columns = csr.shape
    data = np.asarray(csr.data)
    if data.dtype not in (np.float32, np.float64):  # pyright: ignore[reportUnnecessaryContains]
        data = data.astype(np.float64)
    sizes = _column_sizes(data, csr.indices, n_columns)
    if sizes[-1]:
        raise AnalysisError(
            f"The feature matrix holds {sizes[-1]} values that are NaN or infinite; "
            "ranks need finite values. Look for the first site whose codes are not finite."
        )
    indptr = np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.int64)
    if data.dtype == np.float64:
        with np.errstate(over="ignore", under="ignore"):
            narrow = data.astype(np.float32)
        if np.array_equal(narrow, data):
            data = narrow
    if data.dtype == np.float32:
        data = np.ascontiguousarray(data)
        keys = _scatter_float32(csr.indptr, csr.indices, data, data.view(np.uint32), indptr)
        rows, leads = np.empty(len(keys), dtype=np.int32), np.empty(len(keys), dtype=np.bool_)
        n_negative = np.zeros(n_columns, dtype=np.int64)
        _in_threads(
            lambda first, last: _sort_float32(keys, indptr, first, last, rows, leads, n_negative), indptr
        )
        parts, values = [rows, leads, n_negative], _decode(keys)
    else:
        *parts, values = _sort_float64(csr.indptr, csr.indices, data, indptr)
    return SortedColumns(indptr, *parts, n_rows, values)  # pyright: ignore[reportCallIssue]


@numba.njit(cache=True, nogil=True)
def _patterns(keys: Any) -> Any:  # pragma: no cover - compiled
    """Bit patterns of the floats in the upper halves of the keys."""
    bits = np.empty(keys.shape[0], dtype=np.uint32)
    for i in range(keys.shape[0]):
        value = np.uint32(keys[i] >> np.uint64(32))
        bits[i] = value & np.uint32(0x7FFFFFFF) if value >> np.uint32(31) else ~value
    return bits


def _decode(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    return _patterns(keys).view(np.float32)


@numba.njit(cache=True, nogil=True)
def _rank_products(
    indptr: Any,
    rows: Any,
    leads: Any,
    n_negative: Any,
    n_rows: int,
    counts: Any,
    masked: bool,
    vectors: Any,
    first: int,
    last: int,
    products: Any,
    zero_rank: Any,
    tie_term: Any,
) -> None:  # pragma: no cover - compiled
    """One walk over the tied groups of some columns; ``counts`` is 1 for rows that take part, else 0."""
    n_vectors = vectors.shape[1]
    for column in range(first, last):
        start, stop = indptr[column], indptr[column + 1]
        split = start + n_negative[column]
        n_below, n_above = split - start, stop - split
        if masked:
            n_below, n_above = 0, 0
            for i in range(start, split):
                n_below += counts[rows[i]]
            for i in range(split, stop):
                n_above += counts[rows[i]]
        n_zero = n_rows - n_below - n_above
        at_zero = n_below + 0.5 * (n_zero + 1)
        ties = float(n_zero) ** 3 - n_zero
        total = products[column]
        before = 0
        i = start
        while i < stop:
            if i == split:
                before += n_zero
            end = i + 1
            while end < stop and not leads[end]:
                end += 1
            size = end - i
            if masked:
                size = 0
                for j in range(i, end):
                    size += counts[rows[j]]
            if size > 0:
                lift = before + 0.5 * (size + 1) - at_zero
                for j in range(i, end):
                    row = rows[j]
                    for k in range(n_vectors):
                        total[k] += lift * vectors[row, k]
                if size > 1:
                    ties += float(size) ** 3 - size
                before += size
            i = end
        zero_rank[column] = at_zero
        tie_term[column] = ties


def rank_products(
    columns: SortedColumns,
    vectors: Float[np.ndarray, "n_rows n_vectors"],
    mask: Bool[np.ndarray, " n_rows"] | None = None,
) -> RankProducts:
    """Products of each column's ranks with dense vectors, over the rows of ``mask``.

    Ranks are mid-ranks among the rows of ``mask`` only, exactly as if the other rows had been removed before
    ranking.

    Parameters
    ----------
    columns : SortedColumns
        From :func:`sort_columns`.
    vectors : float (n_rows, n_vectors)
        What to multiply the ranks with. Must be zero outside ``mask``.
    mask : bool (n_rows,), optional
        Rows that take part; all by default.

    Returns
    -------
    RankProducts
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float64)
    if vectors.shape[0] != columns.n_rows:
        raise AnalysisError(
            f"The features have {columns.n_rows} rows and the vectors {vectors.shape[0]}; they must be aligned."
        )
    masked = mask is not None and not bool(mask.all())
    counts = np.asarray(mask).astype(np.uint8) if masked else np.empty(0, dtype=np.uint8)
    n_rows = int(counts.sum()) if masked else columns.n_rows
    products = np.zeros((columns.n_columns, vectors.shape[1]))
    zero_rank, tie_term = np.empty(columns.n_columns), np.empty(columns.n_columns)
    sorted_parts = (columns.indptr, columns.rows, columns.leads, columns.n_negative)
    given, made = (n_rows, counts, masked, vectors), (products, zero_rank, tie_term)
    _in_threads(lambda first, last: _rank_products(*sorted_parts, *given, first, last, *made), columns.indptr)
    return RankProducts(products, zero_rank, tie_term, n_rows)


def centred_ranks(
    values: Float[np.ndarray, " n_rows"], mask: Bool[np.ndarray, " n_rows"]
) -> Float[np.ndarray, " n_rows"]:
    """Mid-ranks of the values inside ``mask``, less their mean; zero outside."""
    ranks = np.zeros(len(values))
    inside = values[mask]
    ranks[mask] = stats.rankdata(inside) - 0.5 * (len(inside) + 1)
    return ranks


def dense_ranks(columns: SortedColumns, column: int) -> Float[np.ndarray, " n_rows"]:
    """All mid-ranks of one column, zeros included; for figures and tests, not for bulk work."""
    result = rank_products(columns, np.zeros((columns.n_rows, 0)))
    ranks = np.full(columns.n_rows, result.zero_rank[column])
    start, stop = columns.indptr[column], columns.indptr[column + 1]
    levels = np.cumsum(columns.leads[start:stop])
    values = np.zeros(columns.n_rows)
    # levels below zero become negative so that the zeros keep their place between the two signs
    n_below = columns.n_negative[column]
    last_below = levels[n_below - 1] if n_below else 0
    values[columns.rows[start:stop]] = np.where(levels > last_below, levels, levels - last_below - 1)
    ranks[:] = stats.rankdata(values)
    return ranks
