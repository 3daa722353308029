"""Counterfactual edits of a user's own sequences, each with its sham.

The edits and shams of :mod:`helix_sae.mrna.counterfactuals` need a coding region and letters ACGU, nothing of
the simulator: upstream AUGs made, broken and shifted, the purine at -3 taken away, a synonymous swap at equal
GC. This module adds the +4 position, a recoding of the whole coding region at equal protein and equal GC, and
the knock-out of motifs that the user names. Differences are what the simulator's mechanism *expects* of the
sequence, not measurements; where it says nothing (a user's motif) they are missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from helix_sae.errors import DataError
from helix_sae.mrna.counterfactuals import DECOY_KINDS, PHENOTYPES, counterfactual_pairs
from helix_sae.mrna.mechanism import phenotypes
from helix_sae.mrna.tables import GENETIC_CODE, STOPS

STANDARD_KINDS = (
    "uaug_make",
    "uaug_break",
    "uaug_shift_frame",
    "uorf_give_stop",
    "uaug_kozak_minus3",
    "main_kozak_minus3",
    "synonymous_swap",
)
OWN_KINDS = ("main_kozak_plus4", "synonymous_recoding")

_SAME_GC = {"A": "U", "U": "A", "G": "C", "C": "G"}
_IUPAC = {
    **{letter: letter for letter in "ACGU"},
    "R": "[AG]",
    "Y": "[CU]",
    "S": "[CG]",
    "W": "[AU]",
    "K": "[GU]",
    "M": "[AC]",
    "B": "[CGU]",
    "D": "[AGU]",
    "H": "[ACU]",
    "V": "[ACG]",
    "N": "[ACGU]",
}


def design_pairs(
    table: pd.DataFrame,
    *,
    n_per_kind: int = 50,
    kinds: Sequence[str] = STANDARD_KINDS + OWN_KINDS,
    motifs: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw designed edits and their shams from an mRNA table.

    Parameters
    ----------
    table : DataFrame
        ``sequence, cds_start, cds_end, cluster``. Rows without a start codon or with letters other than ACGU
        give no edit that needs them.
    n_per_kind : int
        Edits of each kind, at most one a sequence.
    kinds : sequence of str
        Of :data:`STANDARD_KINDS` and :data:`OWN_KINDS`, and of the decoys of
        :mod:`helix_sae.mrna.counterfactuals`, which change what goes along with a phenotype and causes
        nothing.
    motifs : mapping of name to IUPAC pattern, optional
        Each is knocked out by one substitution that leaves the GC content as it is; the kind is
        ``motif_<name>``. The sham makes the same substitution at a place that no motif covers.
    seed : int

    Returns
    -------
    DataFrame
        In the schema of :func:`helix_sae.mrna.counterfactuals.counterfactual_pairs`, for
        :func:`helix_sae.causal.pairs.designed_pairs` with ``difference_kind="expected"``.

    Raises
    ------
    DataError
        If a kind or a letter of a motif is unknown.
    """
    known = STANDARD_KINDS + OWN_KINDS + DECOY_KINDS
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise DataError(f"Unknown kinds of edit {unknown}; there are {', '.join(known)}.")
    patterns = {name: _compiled(name, pattern) for name, pattern in (motifs or {}).items()}
    rng = np.random.default_rng(seed)
    plain = table[table["sequence"].str.fullmatch("[ACGU]+")].assign(
        family=lambda t: t["cluster"].astype(str)
    )
    coding = plain[plain["cds_start"].notna()].reset_index(drop=True)
    standard = [kind for kind in kinds if kind not in OWN_KINDS]
    parts = [counterfactual_pairs(coding, rng, n_per_kind=n_per_kind, kinds=standard)] if standard else []
    if "main_kozak_plus4" in kinds:
        parts.append(_collect(coding, "main_kozak_plus4", _plus4, rng, n_per_kind))
    if "synonymous_recoding" in kinds:
        parts.append(_collect(coding, "synonymous_recoding", _recoded, rng, n_per_kind))
    for name, pattern in patterns.items():
        knock_out = partial(_knocked_out, pattern=pattern, others=list(patterns.values()))
        made = _collect(plain.reset_index(drop=True), f"motif_{name}", knock_out, rng, n_per_kind)
        parts.append(made.assign(**{f"true_difference_{p}": np.nan for p in PHENOTYPES}))
    return pd.concat(parts, ignore_index=True)


_Proposal = tuple[str, str | None]
"""The edited sequence and its sham, if there is one."""

_Propose = Callable[[Any, np.random.Generator], _Proposal | None]
"""From a row of the table to an edit of it, where it has a place for one."""


def _collect(
    table: pd.DataFrame,
    kind: str,
    propose: _Propose,
    rng: np.random.Generator,
    n_wanted: int,
) -> pd.DataFrame:
    """Go through the sequences in random order until there are enough edits."""
    rows: list[dict[str, Any]] = []
    n_found = 0
    for index in rng.permutation(len(table)):
        if n_found == n_wanted:
            break
        row = table.iloc[index]
        proposal = propose(row, rng)
        if proposal is None:
            continue
        pair_id = f"{kind}_{n_found:05d}"
        n_found += 1
        edited, sham = proposal
        rows.append(_pair_row(pair_id, kind, "effect", None, row, edited))
        if sham is not None:
            rows.append(_pair_row(f"sham_{pair_id}", kind, "sham", pair_id, row, sham))
    return _with_expectations(rows)


def _pair_row(
    pair_id: str, kind: str, role: str, matched: str | None, row: Any, target: str
) -> dict[str, Any]:
    positions = [i for i, (a, b) in enumerate(zip(row["sequence"], target, strict=True)) if a != b]
    return {
        "pair_id": pair_id,
        "kind": kind,
        "role": role,
        "matched_pair": matched,
        "source": row["sequence"],
        "target": target,
        "positions": positions,
        "family": row["family"],
        "cds_start": row["cds_start"],
        "cds_end": row["cds_end"],
    }


def _with_expectations(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Add what the mechanism expects: target minus source; exactly 0 for shams."""
    names = [f"true_difference_{p}" for p in PHENOTYPES]
    columns = [
        "pair_id",
        "kind",
        "role",
        "matched_pair",
        "source",
        "target",
        "positions",
        "family",
        "cds_start",
        "cds_end",
    ]
    made = pd.DataFrame(rows, columns=pd.Index(columns)).astype({"cds_start": "Int64", "cds_end": "Int64"})
    if made.empty or made["cds_start"].isna().any():
        return made.assign(**dict.fromkeys(names, np.nan))
    starts, ends = made["cds_start"].astype(int).tolist(), made["cds_end"].fillna(-1).astype(int).tolist()
    before, after = (phenotypes(made[side].tolist(), starts, ends) for side in ("source", "target"))
    for name, a, b in zip(names, before, after, strict=True):
        difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
        made[name] = np.where((made["role"] == "sham") & np.isfinite(difference), 0.0, difference)
    return made


def _plus4(row: Any, rng: np.random.Generator) -> _Proposal | None:
    """Take away the G at +4. The sham changes a G at the start of the codon after it, or of a later one."""
    sequence, start = str(row["sequence"]), int(row["cds_start"])
    at = start + 3
    if at >= len(sequence) or sequence[at] != "G" or _makes_stop(sequence, at):
        return None
    end = len(sequence) if pd.isna(row["cds_end"]) else int(row["cds_end"]) - 3
    elsewhere = [i for i in range(at + 3, end - 2, 3) if sequence[i] == "G" and not _makes_stop(sequence, i)]
    return _substituted(sequence, at), _substituted(sequence, elsewhere[0]) if elsewhere else None


def _makes_stop(sequence: str, at: int) -> bool:
    return _SAME_GC[sequence[at]] + sequence[at + 1 : at + 3] in STOPS


def _substituted(sequence: str, at: int) -> str:
    return sequence[:at] + _SAME_GC[sequence[at]] + sequence[at + 1 :]


def _recoded(row: Any, rng: np.random.Generator) -> _Proposal | None:
    """Exchange every third position that can be, by A-U and G-C, so that protein and GC stay.

    The sham shuffles codons.

    The sham permutes the codons of each amino acid among its places: as many changes as there can be, at the
    same codon composition.
    """
    if pd.isna(row["cds_end"]):
        return None
    sequence, start, end = str(row["sequence"]), int(row["cds_start"]), int(row["cds_end"])
    codons = [sequence[i : i + 3] for i in range(start + 3, end - 3, 3)]
    recoded = [_synonym(codon) for codon in codons]
    if recoded == codons:
        return None
    whole = sequence[: start + 3] + "".join(recoded) + sequence[start + 3 + 3 * len(codons) :]
    shuffled = (
        sequence[: start + 3] + "".join(_shuffled(codons, rng)) + sequence[start + 3 + 3 * len(codons) :]
    )
    return whole, shuffled if shuffled != sequence else None


def _synonym(codon: str) -> str:
    other = codon[:2] + _SAME_GC[codon[2]]
    return other if GENETIC_CODE.get(other) == GENETIC_CODE.get(codon) else codon


def _shuffled(codons: list[str], rng: np.random.Generator) -> list[str]:
    acids = np.array([GENETIC_CODE.get(codon, "?") for codon in codons])
    out = np.array(codons, dtype=object)
    for acid in np.unique(acids):
        places = np.flatnonzero(acids == acid)
        out[places] = out[rng.permutation(places)]
    return [str(codon) for codon in out]


def _knocked_out(
    row: Any, rng: np.random.Generator, pattern: re.Pattern[str], others: Sequence[re.Pattern[str]]
) -> _Proposal | None:
    """Break one occurrence of a motif by a substitution that creates no other occurrence of any motif."""
    sequence = str(row["sequence"])
    covered = {i for motif in others for a, b in _matches(motif, sequence) for i in range(a, b)}
    spans = _matches(pattern, sequence)
    for index in rng.permutation(len(spans)):
        begin, end = spans[index]
        for at in rng.permutation(np.arange(begin, end)):
            edited = _substituted(sequence, int(at))
            if len(_matches(pattern, edited)) < len(spans) and not _gained(others, sequence, edited):
                return edited, _elsewhere(sequence, int(at), covered, others)
    return None


def _elsewhere(sequence: str, at: int, covered: set[int], motifs: Sequence[re.Pattern[str]]) -> str | None:
    """The same letter exchanged at the nearest place that touches no motif."""
    places = [i for i, letter in enumerate(sequence) if letter == sequence[at] and i not in covered]
    for i in sorted(places, key=lambda i: abs(i - at)):
        sham = _substituted(sequence, i)
        if all(len(_matches(m, sham)) == len(_matches(m, sequence)) for m in motifs):
            return sham
    return None


def _gained(motifs: Sequence[re.Pattern[str]], before: str, after: str) -> bool:
    return any(len(_matches(m, after)) > len(_matches(m, before)) for m in motifs)


def _matches(pattern: re.Pattern[str], sequence: str) -> list[tuple[int, int]]:
    """Where the motif stands, overlaps included."""
    return [(m.start(), m.start() + len(m.group(1))) for m in pattern.finditer(sequence)]


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    letters = list(_letters(name, pattern))
    return re.compile("(?=(" + "".join(letters) + "))")


def _letters(name: str, pattern: str) -> Iterator[str]:
    for letter in pattern.upper().replace("T", "U"):
        if letter not in _IUPAC:
            raise DataError(f"Motif {name!r} has the letter {letter!r}, which is no IUPAC nucleotide code.")
        yield _IUPAC[letter]
