"""Slow plain twins of the vectorised mRNA functions, written from the definitions and sharing no code with them."""

from __future__ import annotations

import math
import re

KOZAK_PERCENT = {
    -6: (17, 19, 44, 20),
    -5: (18, 39, 23, 20),
    -4: (25, 53, 15, 7),
    -3: (61, 2, 36, 1),
    -2: (27, 49, 13, 11),
    -1: (15, 55, 21, 9),
    3: (23, 16, 46, 15),
}
STOPS = ("UAA", "UAG", "UGA")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def kozak(sequence: str, position: int) -> float:
    score = 0.0
    for offset, percents in KOZAK_PERCENT.items():
        at = position + offset
        if 0 <= at < len(sequence) and sequence[at] in "ACGU":
            score += math.log2(percents["ACGU".index(sequence[at])] / 100 / 0.25)
    return score


def upstream_augs(sequence: str, start: int) -> list[tuple[int, str, int | None]]:
    """(position, class, position of the stop) of every uAUG."""
    found = []
    for i in range(start - 2):
        if sequence[i : i + 3] != "AUG":
            continue
        stop = next((j for j in range(i + 3, start - 2, 3) if sequence[j : j + 3] in STOPS), None)
        kind = "contained" if stop is not None else "in_frame" if (start - i) % 3 == 0 else "overlapping"
        found.append((i, kind, stop))
    return found


def gc(sequence: str) -> float | None:
    known = [letter for letter in sequence if letter in "ACGU"]
    return sum(letter in "GC" for letter in known) / len(known) if known else None


def load_and_accessibility(sequence: str, start: int) -> tuple[float, float]:
    reach, load = 1.0, 0.0
    for position, kind, _ in upstream_augs(sequence, start):
        p = sigmoid(1.95 + 0.335 * kozak(sequence, position))
        if kind == "overlapping":
            reach *= 1 - p
        elif kind == "contained":
            reach *= 1 - 0.77 * p
        else:
            load += 0.876 * p * reach
            reach *= 1 - p
    load += reach * sigmoid(2 + 0.045 * kozak(sequence, start))
    return load, sigmoid(5.49 - 7.13 * (gc(sequence[:start]) or 0.0))


def mean_ribosome_load(sequence: str, start: int) -> float:
    load, accessibility = load_and_accessibility(sequence, start)
    return 3.39 + 5.73 * load * accessibility


def count(motif: str, sequence: str) -> int:
    return len(re.findall(f"(?={motif})", sequence))


def mirna_site(seed: str) -> str:
    return "".join({"A": "U", "C": "G", "G": "C", "U": "A"}[base] for base in reversed(seed)) + "A"


def codons(sequence: str, start: int, end: int) -> list[str]:
    return [sequence[i : i + 3] for i in range(start, end - 2, 3)]


def upstream_orfs(sequence: str, start: int) -> list[tuple[int, int, bool]]:
    """(start, end, contained) of every uORF; AUGs of one frame with one end are one uORF."""
    found: dict[tuple[int, int], tuple[int, int, bool]] = {}
    for position, kind, stop in upstream_augs(sequence, start):
        if kind == "in_frame":
            continue
        if stop is None:
            later = (j for j in range(position + 3, len(sequence) - 2, 3) if sequence[j : j + 3] in STOPS)
            end = next((j + 3 for j in later), len(sequence))
        else:
            end = stop + 3
        found.setdefault((position % 3, end), (position, end, kind == "contained"))
    return sorted(found.values())
