"""Selection of active features on the CPU, compiled.

``torch.topk`` and ``nonzero`` take several times as long as the matrix product before them; these take a
fraction of it, because they read each row while it is still in the cache and count with vector instructions.
They release the GIL.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _count_above(row: Any, threshold: Any) -> Any:
    count = np.int32(0)
    for j in range(row.size):
        count += np.int32(row[j] > threshold)
    return count


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _bracket(row: Any, k: Any, enough: Any, guess: Any, slope: Any) -> Any:
    """Find ``low < high`` with more than ``high`` below k, above ``low`` between k and ``enough`` (ties aside).

    The number of entries above ``t`` falls about exponentially in ``t``, so the search steps in its
    logarithm.
    """
    low, high = np.float32(-np.inf), np.float32(np.inf)
    t = guess
    wanted = np.log(np.float32(0.5) * (k + enough))
    last_t, last_log = t, np.float32(-1.0)  # no count has this logarithm
    for _ in range(160):
        count = _count_above(row, t)
        if count >= k:
            low = t
            if count <= enough:
                break
        else:
            high = t
        here = np.log(np.float32(count) + np.float32(0.5))
        if here == last_log:
            slope *= np.float32(4.0)
        elif last_log >= 0:
            slope = np.float32(min(max((t - last_t) / (last_log - here), 0.25 * slope), 4.0 * slope))
        last_t, last_log = t, here
        t = np.float32(t + slope * (here - wanted))
        if not (low < t < high):
            if low > -np.inf and high < np.inf:
                t = np.float32(0.5) * (low + high)
                if not (low < t < high):
                    break
            else:
                slope *= np.float32(2.0)
                t = low + slope if low > -np.inf else high - slope
    return low, high, slope


@numba.njit(cache=True, nogil=True, error_model="numpy")
def top_k_rows(pre: Any, bias: Any, k: Any, codes: Any, features: Any) -> None:
    """Write the k largest entries of each row of ``pre + bias``, negative ones as 0, and their columns, ascending.

    Among equal entries at the edge the first columns are taken. A row with NaN gives NaN.

    Parameters
    ----------
    pre : float32 (n, m)
        Overwritten with ``pre + bias``.
    bias : float32 (m,)
    k : int
        At most m.
    codes : float32 (n, k)
        Output.
    features : int64 (n, k)
        Output.
    """
    n, m = pre.shape
    candidates = np.empty(m + 1, np.float32)
    columns = np.empty(m + 1, np.int64)
    guess, slope = np.float32(0.0), np.float32(0.5)
    enough = min(m, k + (k >> 1) + 4)
    for i in range(n):
        row = pre[i]
        not_numbers = np.int32(0)
        for j in range(m):
            row[j] += bias[j]
            not_numbers += np.int32(row[j] - row[j] != 0)
        if not_numbers > 0:
            codes[i] = np.nan
            features[i] = np.arange(k)
            continue
        low, high, slope = _bracket(row, k, enough, guess, slope)
        size = 0
        for j in range(m):
            candidates[size] = row[j]
            columns[size] = j
            size += np.int64(row[j] > low)
        few = candidates[:size]
        if high == np.inf:
            high = few.max()
        if low > -np.inf:
            guess = low
        elif size > k:
            lowest = few.min()
            if _count_above(few, lowest) >= k:
                low = lowest
            else:
                high = lowest
        # Narrow down until exactly k lie above, or only ties at the edge are left.
        above = size
        while above > k and low > -np.inf:
            t = np.float32(0.5) * (low + high)
            if not (low < t < high):
                break
            count = _count_above(few, t)
            if count >= k:
                low, above = t, count
            else:
                high = t
        written = 0
        exact = _count_above(few, low) == k
        ties = 0 if exact else k - _count_above(few, high)
        for j in range(size):
            take = few[j] > (low if exact else high)
            if not take and ties > 0 and few[j] > low:
                take = True
                ties -= 1
            if take and written < k:
                codes[i, written] = max(few[j], np.float32(0.0))
                features[i, written] = columns[j]
                written += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def entries_above(pre: Any, bias: Any, threshold: Any, codes: Any, features: Any, counts: Any) -> Any:
    """Write the entries of ``pre + bias`` that exceed their column's threshold, row by row, and return their number.

    Parameters
    ----------
    pre : float32 (n, m)
    bias, threshold : float32 (m,)
    codes : float32 (n * m + 1,)
        Output, only its beginning is touched.
    features : int64 (n * m + 1,)
        Output.
    counts : int64 (n,)
        Output: entries of each row.
    """
    n, m = pre.shape
    size = 0
    for i in range(n):
        start = size
        for j in range(m):
            value = pre[i, j] + bias[j]
            codes[size] = value
            features[size] = j
            size += np.int64(not (value <= threshold[j]))  # so that NaN is not lost
        counts[i] = size - start
    return size
