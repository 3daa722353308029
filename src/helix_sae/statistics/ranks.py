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

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int
from numba.core import config as numba_config
from scipy import sparse, stats

from helix_sae.errors import AnalysisError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_WORTH_A_THREAD = 200_000  # non-zeros
_LANES = 4  # of a vector register
_CACHE_LINE = 64  # bytes
_WORTH_A_RADIX = 64  # non-zeros of a column
_DIGIT_BITS = 9
_KEYS_AT_ONCE = 1 << 20  # of eight bytes; fewer, and too little of each row is read at a time


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
    smallest, largest = keys[0], keys[0]
    for i in range(n):
        smallest, largest = min(smallest, keys[i]), max(largest, keys[i])
    # Only the bits in which the values of the column differ have to be looked at.
    offset = (smallest >> np.uint64(32)) << np.uint64(32)
    span, n_bits = (largest - offset) >> np.uint64(32), 0
    while span >> np.uint64(n_bits):
        n_bits += 1
    passes = -(-n_bits // _DIGIT_BITS)
    if passes == 0:
        return
    width = -(-n_bits // passes)
    mask = np.uint64((1 << width) - 1)
    for digit in range(passes):
        for b in range(1 << width):
            counts[digit, b] = 0
    for i in range(n):
        value = (keys[i] - offset) >> np.uint64(32)
        for digit in range(passes):
            counts[digit, (value >> np.uint64(width * digit)) & mask] += 1
    source, target = keys, spare[:n]
    for digit in range(passes):
        start, shift = counts[digit], np.uint64(32 + width * digit)
        total = 0
        for b in range(1 << width):
            count = start[b]
            start[b] = total
            total += count
        for i in range(n):
            key = source[i]
            bucket = ((key - offset) >> shift) & mask
            target[start[bucket]] = key
            start[bucket] += 1
        source, target = target, source
    if passes % 2:
        for i in range(n):
            keys[i] = source[i]


@numba.njit(cache=True, nogil=True)
def _insertion_sort(keys: Any) -> None:  # pragma: no cover - compiled
    """Sort a few keys in place."""
    for i in range(1, keys.shape[0]):
        key, j = keys[i], i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key


@numba.njit(cache=True, nogil=True)
def _column_sizes(
    row_pointer: Any, indices: Any, data: Any, n_columns: int
) -> Any:  # pragma: no cover - compiled
    """Non-zeros of each column, how many values are not finite, and how many are not in order of column."""
    sizes = np.zeros(n_columns, dtype=np.int64)
    n_infinite, n_disordered = 0, 0
    for row in range(row_pointer.shape[0] - 1):
        before = -1
        for i in range(row_pointer[row], row_pointer[row + 1]):
            column, value = indices[i], data[i]
            if not np.isfinite(value):
                n_infinite += 1
            elif value != 0:
                sizes[column] += 1
            n_disordered += column <= before
            before = column
    return sizes, n_infinite, n_disordered


@numba.njit(cache=True, nogil=True)
def _sort_float32(
    row_pointer: Any,
    indices: Any,
    data: Any,
    indptr: Any,
    first: int,
    last: int,
    rows: Any,
    leads: Any,
    n_negative: Any,
    values: Any,
) -> None:  # pragma: no cover - compiled
    """Sort the columns from ``first`` to ``last`` of a CSR matrix whose rows are in order of column.

    Some columns at a time, as 64-bit keys (value, row). ``data`` and ``values`` are bit patterns.
    """
    n_rows = row_pointer.shape[0] - 1
    cursor = np.empty(n_rows, dtype=np.int64)
    for row in range(n_rows):
        i, stop = row_pointer[row], row_pointer[row + 1]
        while i < stop and indices[i] < first:
            i += 1
        cursor[row] = i
    wanted = max(_KEYS_AT_ONCE, 4 * n_rows)
    widest = 0
    for column in range(first, last):
        widest = max(widest, indptr[column + 1] - indptr[column])
    keys, spare = np.empty(0, dtype=np.uint64), np.empty(widest, dtype=np.uint64)
    counts = np.empty((-(-32 // _DIGIT_BITS), 1 << _DIGIT_BITS), dtype=np.int32)
    begin = first
    while begin < last:
        end = begin + 1
        while end < last and indptr[end + 1] - indptr[begin] <= wanted:
            end += 1
        base, n_keys = indptr[begin], indptr[end] - indptr[begin]
        if keys.shape[0] < n_keys:
            keys = np.empty(n_keys, dtype=np.uint64)
        fill = np.empty(end - begin, dtype=np.int64)
        for column in range(begin, end):
            fill[column - begin] = indptr[column] - base
        for row in range(n_rows):
            i, stop = cursor[row], row_pointer[row + 1]
            while i < stop and indices[i] < end:
                value = data[i]
                if value & np.uint32(0x7FFFFFFF):  # neither 0 nor -0
                    # the bit pattern of a float, made to rise with its value over the whole real line
                    value = ~value if value >> np.uint32(31) else value | np.uint32(0x80000000)
                    column = indices[i] - begin
                    keys[fill[column]] = (np.uint64(value) << np.uint64(32)) | np.uint64(row)
                    fill[column] += 1
                i += 1
            cursor[row] = i
        for column in range(begin, end):
            low, high = indptr[column] - base, indptr[column + 1] - base
            if high - low >= _WORTH_A_RADIX:
                _radix_sort(keys[low:high], spare, counts)
            else:
                _insertion_sort(keys[low:high])
            before = np.uint64(0)  # no finite non-zero value has this pattern
            for i in range(low, high):
                value = keys[i] >> np.uint64(32)
                rows[base + i] = np.int32(keys[i] & np.uint64(0xFFFFFFFF))
                leads[base + i] = value != before
                before = value
                pattern = np.uint32(value)
                if pattern >> np.uint32(31):
                    values[base + i] = pattern & np.uint32(0x7FFFFFFF)
                else:
                    values[base + i] = ~pattern
                    n_negative[column] += 1
        begin = end


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

    Columns know nothing of each other, so the result is the same on any number of threads; the compiled loops
    let go of the interpreter. Numba's own threads are not used: they cannot be entered from several threads
    at once.
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
    n_rows, n_columns = csr.shape
    pointer, indices = index_arrays(csr)
    sizes, n_infinite, n_disordered = _column_sizes(pointer, indices, csr.data, n_columns)
    if n_disordered:
        csr = csr.copy()
        csr.has_canonical_format = False
        csr.sum_duplicates()
        pointer, indices = index_arrays(csr)
        sizes, n_infinite, _ = _column_sizes(pointer, indices, csr.data, n_columns)
    data = np.asarray(csr.data)
    if data.dtype not in (np.float32, np.float64):  # pyright: ignore[reportUnnecessaryContains]
        data = data.astype(np.float64)
    if n_infinite:
        raise AnalysisError(
            f"The feature matrix holds {n_infinite} values that are NaN or infinite; "
            "ranks need finite values. Look for the first site whose codes are not finite."
        )
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    if data.dtype == np.float64:
        with np.errstate(over="ignore", under="ignore"):
            narrow = data.astype(np.float32)
        if np.array_equal(narrow, data):
            data = narrow
    if data.dtype == np.float32:
        patterns = np.ascontiguousarray(data).view(np.uint32)
        rows, leads = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.bool_)
        n_negative, values = np.zeros(n_columns, dtype=np.int64), np.empty(indptr[-1], dtype=np.float32)
        given, made = (pointer, indices, patterns, indptr), (rows, leads, n_negative, values)
        _in_threads(
            lambda first, last: _sort_float32(*given, first, last, *made[:3], values.view(np.uint32)), indptr
        )
        return SortedColumns(indptr, *made[:3], n_rows, values)
    rows, leads, n_negative, values = _sort_float64(pointer, indices, data, indptr)
    return SortedColumns(indptr, rows, leads, n_negative, n_rows, values)


def index_arrays(csr: Any) -> tuple[Int[np.ndarray, " rows_1"], Int[np.ndarray, " stored"]]:
    """Row pointer and columns, of one type whatever scipy chose: the loops are compiled anew for each."""
    return csr.indptr.astype(np.int64, copy=False), csr.indices.astype(np.int32, copy=False)


@numba.njit(cache=True, nogil=True)
def _rank_products(
    indptr: Any,
    rows: Any,
    leads: Any,
    n_negative: Any,
    entries: Any,
    totals: Any,
    first: int,
    last: int,
    products: Any,
    zero_rank: Any,
    tie_term: Any,
) -> None:  # pragma: no cover - compiled
    """One walk over the tied groups of some columns, for all vectors at once.

    A row of ``entries`` holds that row's value of each vector, then for each vector 1 where the row takes
    part and else 0; ``totals`` is how many rows do. Where the zeros stand is known only at the end of a
    column; until then ranks are counted from the first value below zero, and from the first above.
    """
    width = totals.shape[0]
    before, below, total = np.empty(width), np.empty(width), np.empty(width)
    size, lift, ties = np.empty(width), np.empty(width), np.empty(width)
    sums = np.empty((2, width))
    for column in range(first, last):
        start, stop = indptr[column], indptr[column + 1]
        split = start + n_negative[column]
        before[:] = 0.0
        total[:] = 0.0
        ties[:] = 0.0
        sums[:] = 0.0
        for side in range(2):
            i, border = (start, split) if side == 0 else (split, stop)
            added = sums[side]
            while i < border:
                end = i + 1
                while end < border and not leads[end]:
                    end += 1
                if end == i + 1:
                    entry = entries[rows[i]]
                    for k in range(width):
                        before[k] += entry[width + k]
                        total[k] += before[k] * entry[k]
                        added[k] += entry[k]
                else:
                    size[:] = 0.0
                    for j in range(i, end):
                        entry = entries[rows[j]]
                        for k in range(width):
                            size[k] += entry[width + k]
                    for k in range(width):
                        lift[k] = before[k] + 0.5 * (size[k] + 1.0)
                        before[k] += size[k]
                        ties[k] += size[k] * size[k] * size[k] - size[k]
                    for j in range(i, end):
                        entry = entries[rows[j]]
                        for k in range(width):
                            total[k] += lift[k] * entry[k]
                            added[k] += entry[k]
                i = end
            if side == 0:
                below[:] = before
                before[:] = 0.0
        for k in range(width):
            n_zero = totals[k] - below[k] - before[k]
            at_zero = below[k] + 0.5 * (n_zero + 1.0)
            products[column, k] = total[k] + (below[k] + n_zero - at_zero) * sums[1, k] - at_zero * sums[0, k]
            zero_rank[column, k] = at_zero
            tie_term[column, k] = ties[k] + n_zero * n_zero * n_zero - n_zero


@numba.njit(cache=True, nogil=True)
def mid_ranks(
    rows: Any, leads: Any, n_negative: int, inside: Any, n_inside: int, ranks: Any
) -> Any:  # pragma: no cover - compiled
    """Mid-ranks of one sorted column among some rows, less their mean.

    Parameters
    ----------
    rows, leads : (n_stored,)
        Row of each stored value, and whether it begins a group of ties.
    n_negative : int
        How many of them are below zero.
    inside : bool (n_rows,)
        Rows that are ranked, ``n_inside`` of them.
    ranks : float (n_stored,)
        Written to. A row that is not ranked gets what it has no use for.

    Returns
    -------
    (float, int)
        Rank of the zeros, which are not stored; how many there are.
    """
    n_stored = rows.shape[0]
    n_below, n_stored_inside = 0, 0
    for i in range(n_stored):
        if inside[rows[i]]:
            n_stored_inside += 1
            n_below += i < n_negative
    n_zero = n_inside - n_stored_inside
    middle = 0.5 * (n_inside + 1)
    before = 0
    i = 0
    while i < n_stored:
        if i == n_negative:
            before += n_zero
        end, size = i, 0
        while end < n_stored and (end == i or not leads[end]):
            size += inside[rows[end]]
            end += 1
        ranks[i:end] = before + 0.5 * (size + 1) - middle
        before += size
        i = end
    return n_below + 0.5 * (n_zero + 1) - middle, n_zero


class RankedRows(NamedTuple):
    """Vectors to multiply ranks with, and the rows that are ranked for them.

    Attributes
    ----------
    vectors : float (n_rows, n_vectors)
        Zero outside ``mask``.
    mask : bool (n_rows,), optional
        Rows that take part; all when absent.
    """

    vectors: Float[np.ndarray, "n_rows n_vectors"]
    mask: Bool[np.ndarray, " n_rows"] | None = None


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
    return grouped_rank_products(columns, [RankedRows(vectors, mask)])[0]


def grouped_rank_products(columns: SortedColumns, groups: Sequence[RankedRows]) -> list[RankProducts]:
    """:func:`rank_products` for several sets of rows (properties with different missing labels) in one walk.

    Raises
    ------
    AnalysisError
        If the vectors have another number of rows than the features.
    """
    for group in groups:
        if group.vectors.shape[0] != columns.n_rows:
            raise AnalysisError(
                f"The features have {columns.n_rows} rows and the vectors {group.vectors.shape[0]}; "
                "they must be aligned."
            )
    # A group without vectors still has zeros and ties to be ranked: for one of nothing.
    blocks = [g.vectors if g.vectors.shape[1] else np.zeros((columns.n_rows, 1)) for g in groups]
    starts = np.cumsum([0, *(block.shape[1] for block in blocks)])
    masks = [np.ones(columns.n_rows, dtype=bool) if g.mask is None else g.mask for g in groups]
    members = [np.broadcast_to(mask[:, None], block.shape) for mask, block in zip(masks, blocks, strict=True)]
    entries = _side_by_side(np.hstack(blocks, dtype=np.float64), np.hstack(members))
    width = entries.shape[1] // 2
    totals = entries[:, width:].sum(axis=0, dtype=np.float64)
    products, zero_rank, tie_term = np.empty((3, columns.n_columns, width))
    given = (columns.indptr, columns.rows, columns.leads, columns.n_negative, entries, totals)
    _in_threads(
        lambda first, last: _rank_products(*given, first, last, products, zero_rank, tie_term), columns.indptr
    )
    return [
        RankProducts(
            products[:, start : start + group.vectors.shape[1]],
            zero_rank[:, start].copy(),
            tie_term[:, start].copy(),
            int(totals[start]),
        )
        for group, start in zip(groups, starts, strict=False)
    ]


def _side_by_side(vectors: FloatArray, members: BoolArray) -> npt.NDArray[Any]:
    """All that belongs to a row, in as few cache lines as it can be.

    The walk visits the rows in no order and is bound by reading them. So the numbers are float32 where that
    loses nothing, as with ranks and indicators.

    Returns
    -------
    float32 or float64 (n_rows, 2 width)
        The vectors and the members, each filled up with zeros.
    """
    with np.errstate(over="ignore", under="ignore"):
        narrow = vectors.astype(np.float32)
    values = narrow if np.array_equal(narrow, vectors) else vectors
    n_rows, n_vectors = values.shape
    width = -(-n_vectors // _LANES) * _LANES
    a_line = _CACHE_LINE // values.itemsize
    memory = np.zeros(n_rows * 2 * width + a_line, dtype=values.dtype)
    offset = -memory.ctypes.data % _CACHE_LINE // values.itemsize
    entries = memory[offset : offset + n_rows * 2 * width].reshape(n_rows, 2 * width)
    entries[:, :n_vectors], entries[:, width : width + n_vectors] = values, members
    return entries


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
