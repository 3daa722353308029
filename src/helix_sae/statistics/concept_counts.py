"""The compiled loops of concept matching: counting firings, hits and steps of precision.

Codes come as the three arrays of a CSR matrix (n_nucleotides, n_features), all values >= 0; always of the
same types, for each combination of types is compiled by itself. What a line of numpy can do as well stays
outside: compiling array expressions takes longer than running them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from jaxtyping import Int


@numba.njit(cache=True, nogil=True)
def largest(pointer: Any, indices: Any, data: Any, inside: Any, n_features: int) -> Any:  # pragma: no cover
    """Largest activation of each feature on the rows inside."""
    scale = np.zeros(n_features)
    for row in range(pointer.shape[0] - 1):
        if inside[row]:
            for i in range(pointer[row], pointer[row + 1]):
                if data[i] > scale[indices[i]]:
                    scale[indices[i]] = data[i]
    return scale


@numba.njit(cache=True, nogil=True)
def tally(
    pointer: Any,
    indices: Any,
    data: Any,
    part_of_row: Any,
    bars: Any,
    label_pointer: Any,
    label_concept: Any,
    n_concepts: int,
) -> Any:  # pragma: no cover - compiled
    """One pass over the rows: how often each feature fires, and inside which concepts.

    ``bars`` (n_features, n_thresholds) are rising activations that have to be exceeded; ``part_of_row`` is 0
    (discovery), 1 (validation) or -1. Row by row, a nucleotide's concepts are read once for all its features.
    Counted at the highest bar passed; :func:`at_least` makes of it what passes each.
    """
    n_features, n_levels = bars.shape
    fired = np.zeros((2, n_features, n_levels), dtype=np.int64)
    true = np.zeros((2, n_features, n_levels, n_concepts), dtype=np.int32)
    for row in range(pointer.shape[0] - 1):
        part = part_of_row[row]
        if part < 0:
            continue
        for i in range(pointer[row], pointer[row + 1]):
            feature = indices[i]
            level = -1
            while level + 1 < n_levels and data[i] > bars[feature, level + 1]:
                level += 1
            if level >= 0:
                fired[part, feature, level] += 1
                for j in range(label_pointer[row], label_pointer[row + 1]):
                    true[part, feature, level, label_concept[j]] += 1
    return fired, true


@numba.njit(cache=True, nogil=True)
def tally_instances(
    pointer: Any,
    indices: Any,
    data: Any,
    part_of_row: Any,
    bars: Any,
    rows: Any,
    starts: Any,
    concept_of_instance: Any,
    n_concepts: int,
) -> Any:  # pragma: no cover - compiled
    """How many instances of each concept have at least one firing nucleotide, at the highest bar that any passes.

    ``rows`` lists the nucleotides of one instance after the other, ``starts`` where each begins.
    """
    n_features, n_levels = bars.shape
    hit = np.zeros((2, n_features, n_levels, n_concepts), dtype=np.int32)
    best = np.full(n_features, -1, dtype=np.int64)
    touched = np.empty(n_features, dtype=np.int64)
    for instance in range(starts.shape[0] - 1):
        part = part_of_row[rows[starts[instance]]]
        if part < 0:
            continue
        n_touched = 0
        for r in range(starts[instance], starts[instance + 1]):
            for i in range(pointer[rows[r]], pointer[rows[r] + 1]):
                feature = indices[i]
                level = -1
                while level + 1 < n_levels and data[i] > bars[feature, level + 1]:
                    level += 1
                if level > best[feature]:
                    if best[feature] < 0:
                        touched[n_touched] = feature
                        n_touched += 1
                    best[feature] = level
        for t in range(n_touched):
            hit[part, touched[t], best[touched[t]], concept_of_instance[instance]] += 1
            best[touched[t]] = -1
    return hit


def at_least(counts: Int[np.ndarray, "parts features levels *rest"]) -> np.ndarray:
    """From counts at the highest bar passed to counts of what passes each bar: that passes all lower ones too."""
    return np.flip(np.flip(counts, axis=2).cumsum(axis=2, dtype=counts.dtype), axis=2)


@numba.njit(cache=True, nogil=True)
def average_precision(
    rows: Any, leads: Any, inside: Any, label: Any, positives: int, n_inside: int
) -> float:  # pragma: no cover - compiled
    """Area under the precision-recall steps of one feature and concept; tied activations are one step."""
    area = 0.0
    n_fired, n_true = 0, 0
    end = rows.shape[0]
    while end > 0:
        start = end - 1
        while not leads[start]:
            start -= 1
        before = n_true
        for i in range(start, end):
            if inside[rows[i]]:
                n_fired += 1
                if label[rows[i]] != 0:
                    n_true += 1
        if n_true > before:
            area += (n_true - before) / positives * n_true / n_fired
        end = start
    # What never fires is found last, at the base rate. A sum of many shares may round to more than 1.
    return min(1.0, area + (1.0 - n_true / positives) * positives / n_inside)


@numba.njit(cache=True, nogil=True)
def shifted_counts(
    rows: Any,
    segment: Any,
    bounds: Any,
    shifts: Any,
    label: Any,
    pointer: Any,
    instance: Any,
    seen: Any,
    stamp: int,
    instances_count: bool,
) -> Any:  # pragma: no cover - compiled
    """True positives and hit instances of one feature when its firing positions rotate in their segments.

    Rotating what fires against the labels is the same as rotating the labels against it. Nucleotide i belongs
    to the instances ``instance[pointer[i]:pointer[i + 1]]``; ``seen`` and ``stamp`` count each once, where
    they count.
    """
    n_true, n_hit = 0, 0
    for i in range(rows.shape[0]):
        at = segment[rows[i]]
        start, length = bounds[at], bounds[at + 1] - bounds[at]
        offset = rows[i] - start + shifts[at]
        place = start + (offset if offset < length else offset - length)
        if label[place]:
            n_true += 1
        if instances_count:
            for j in range(pointer[place], pointer[place + 1]):
                if seen[instance[j]] != stamp:
                    seen[instance[j]] = stamp
                    n_hit += 1
    return n_true, n_hit
