"""Pairs of sequences that differ by one edit whose true effect is known.

Each pair is a source and a target of equal length. An *effect* pair changes exactly one element of the
mechanism; its matched *sham* is the same kind of substitution in the same sequence, as near as possible, that
changes none; a *decoy* pair changes something that correlates with the phenotype but does not cause it. 5'UTR
edits replace A by U, U by A, G by C or C by G, so that the GC content, itself a cause, stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from helix_sae.errors import ConfigurationError
from helix_sae.mrna import mechanism
from helix_sae.mrna.encoding import encode
from helix_sae.mrna.mechanism import AugClass
from helix_sae.mrna.tables import GENETIC_CODE, MIRNA_SEEDS, STOPS

EFFECT_KINDS = (
    "uaug_make",
    "uaug_break",
    "uaug_shift_frame",
    "uorf_give_stop",
    "uaug_kozak_minus3",
    "main_kozak_minus3",
    "synonymous_swap",
    "are_break",
)
DECOY_KINDS = ("cpg_transposition", "pentamer_break")
PHENOTYPES = ("mrl", "te", "half_life")

_SAME_GC = {"A": "U", "U": "A", "G": "C", "C": "G"}
_MAX_CANDIDATES = 24
_ROUNDING = 1e-9
"""Codons in another order give the same mean up to the rounding of the sum."""


class Edit(NamedTuple):
    """New letters at some positions of a sequence."""

    positions: tuple[int, ...]
    letters: str


class Transcript(NamedTuple):
    """A sequence with its coding region; ``cds_end`` is -1 where it lies beyond the sequence."""

    sequence: str
    cds_start: int
    cds_end: int


class _Elements(NamedTuple):
    """What the initiation mechanism sees: uAUGs (position, class, context) and the main context."""

    augs: frozenset[tuple[int, int, float]]
    main: float


def apply_edit(sequence: str, edit: Edit) -> str:
    """Return the sequence with the edit's letters at its positions."""
    letters = list(sequence)
    for position, letter in zip(edit.positions, edit.letters, strict=True):
        letters[position] = letter
    return "".join(letters)


def counterfactual_pairs(
    frame: pd.DataFrame,
    rng: np.random.Generator,
    *,
    n_per_kind: int = 100,
    kinds: Sequence[str] = EFFECT_KINDS + DECOY_KINDS,
    mirna_seeds: Mapping[str, str] = MIRNA_SEEDS,
) -> pd.DataFrame:
    """Draw counterfactual pairs from simulated sequences.

    Parameters
    ----------
    frame : DataFrame
        ``sequence`` (ACGU), ``cds_start``, ``cds_end`` (NA for constructs) and ``family``, as the simulator
        returns.
    rng : numpy.random.Generator
        Source of randomness.
    n_per_kind : int
        Pairs of each kind; fewer where fewer sequences allow it (constructs have no codon or 3'UTR pairs). A
        sequence gives at most one pair of a kind.
    kinds : sequence of str
        Names from ``EFFECT_KINDS`` and ``DECOY_KINDS``.
    mirna_seeds : mapping of str to str
        Seeds of the miRNAs in the half-life mechanism.

    Returns
    -------
    DataFrame
        One row per pair: ``pair_id``, ``kind``, ``role`` (effect, sham or decoy), ``matched_pair`` (of a
        sham: the ``pair_id`` whose control it is), ``source``, ``target``, ``positions`` (list of the changed
        positions), ``family``, ``cds_start``, ``cds_end`` and ``true_difference_<phenotype>``, target minus
        source without noise; NaN where the phenotype is not defined and exactly 0 for shams and decoys.

    Raises
    ------
    ConfigurationError
        When a kind is not known.
    """
    unknown = sorted(set(kinds) - set(EFFECT_KINDS) - set(DECOY_KINDS))
    if unknown:
        raise ConfigurationError(
            f"unknown kind(s) of counterfactual {', '.join(unknown)}; "
            f"known are {', '.join(EFFECT_KINDS + DECOY_KINDS)}"
        )
    transcripts = [
        Transcript(sequence, int(start), -1 if pd.isna(end) else int(end))
        for sequence, start, end in zip(frame["sequence"], frame["cds_start"], frame["cds_end"], strict=True)
    ]
    rows: list[dict[str, object]] = []
    for kind in kinds:
        n_found = 0
        for index in rng.permutation(len(transcripts)):
            if n_found == n_per_kind:
                break
            pair = _draw_pair(kind, transcripts[index], rng, mirna_seeds)
            if pair is None:
                continue
            pair_id = f"{kind}_{n_found:05d}"
            family = frame["family"].iloc[index]
            role = "effect" if kind in EFFECT_KINDS else "decoy"
            rows.append(_row(pair_id, kind, role, None, transcripts[index], family, pair))
            n_found += 1
            sham = None if role == "decoy" else _draw_sham(kind, transcripts[index], pair, rng, mirna_seeds)
            if sham is not None:
                rows.append(_row(f"sham_{pair_id}", kind, "sham", pair_id, transcripts[index], family, sham))
    return _typed(rows)


class _Pair(NamedTuple):
    edit: Edit
    target: str
    difference: tuple[float, float, float]


def _draw_pair(
    kind: str, transcript: Transcript, rng: np.random.Generator, mirna_seeds: Mapping[str, str]
) -> _Pair | None:
    """One random edit of the kind that does to the mechanism what the kind says and nothing else."""
    edits = list(_PROPOSALS[kind](transcript))
    chosen = [edits[i] for i in rng.permutation(len(edits))[:_MAX_CANDIDATES]]
    neutral = kind in DECOY_KINDS
    for pair, before, after in _evaluated(transcript, chosen, mirna_seeds):
        changed = any(abs(value) > _ROUNDING for value in pair.difference)
        if _does_only(kind, pair.edit, before, after) and changed != neutral:
            return pair._replace(difference=_exact(pair.difference)) if neutral else pair
    return None


def _draw_sham(
    kind: str, transcript: Transcript, pair: _Pair, rng: np.random.Generator, mirna_seeds: Mapping[str, str]
) -> _Pair | None:
    """Find the nearest edit of the same form that changes nothing in the mechanism."""
    edits = list(_SHAMS.get(kind, _same_substitution)(transcript, pair.edit))
    here = pair.edit.positions[0]
    tie_break = rng.random(len(edits))
    order = sorted(range(len(edits)), key=lambda i: (abs(edits[i].positions[0] - here), tie_break[i]))
    nearest = [edits[i] for i in order[:_MAX_CANDIDATES]]
    for sham, before, after in _evaluated(transcript, nearest, mirna_seeds):
        if before == after and all(not abs(value) > _ROUNDING for value in sham.difference):
            return sham._replace(difference=_exact(sham.difference))
    return None


def _evaluated(
    transcript: Transcript, edits: Sequence[Edit], mirna_seeds: Mapping[str, str]
) -> Iterator[tuple[_Pair, _Elements, _Elements]]:
    """Targets of the edits with their true differences and the initiation elements before and after."""
    if not edits:
        return
    sequences = [transcript.sequence, *(apply_edit(transcript.sequence, edit) for edit in edits)]
    n = len(sequences)
    starts, ends = [transcript.cds_start] * n, [transcript.cds_end] * n
    values = np.stack(mechanism.phenotypes(sequences, starts, ends, mirna_seeds), axis=1)
    elements = _elements(sequences, starts)
    for edit, target, value, after in zip(
        edits, sequences[1:], values[1:] - values[0], elements[1:], strict=True
    ):
        yield _Pair(edit, target, (float(value[0]), float(value[1]), float(value[2]))), elements[0], after


def _elements(sequences: Sequence[str], cds_start: Sequence[int]) -> list[_Elements]:
    flat = encode(sequences)
    starts = np.asarray(cds_start, dtype=np.int64)
    augs = mechanism.upstream_augs(flat, starts)
    main = mechanism.kozak_score(flat, np.arange(len(starts)), starts)
    found: list[set[tuple[int, int, float]]] = [set() for _ in sequences]
    for record, position, kind, kozak in zip(augs.record, augs.position, augs.kind, augs.kozak, strict=True):
        found[int(record)].add((int(position), int(kind), float(kozak)))
    return [_Elements(frozenset(items), float(score)) for items, score in zip(found, main, strict=True)]


def _does_only(kind: str, edit: Edit, before: _Elements, after: _Elements) -> bool:
    """Whether the edit changed the one element that its kind is about."""
    lost, gained = before.augs - after.augs, after.augs - before.augs
    if kind == "main_kozak_minus3":
        return not lost and not gained and before.main != after.main
    if before.main != after.main:
        return False
    if kind == "uaug_make":
        return not lost and len(gained) == 1
    if kind == "uaug_break":
        return not gained and len(lost) == 1
    if kind == "uaug_shift_frame":
        return len(lost) == 1 and len(gained) == 1 and _only(lost)[1] != _only(gained)[1]
    if kind == "uaug_kozak_minus3":
        return len(lost) == 1 and len(gained) == 1 and _only(lost)[:2] == _only(gained)[:2]
    if kind == "uorf_give_stop":
        same = {(position, kozak) for position, _, kozak in lost} == {
            (position, kozak) for position, _, kozak in gained
        }
        return bool(gained) and same and all(aug[1] == AugClass.CONTAINED for aug in gained)
    return not lost and not gained


def _only(augs: frozenset[tuple[int, int, float]]) -> tuple[int, int, float]:
    return next(iter(augs))


def _exact(difference: tuple[float, float, float]) -> tuple[float, float, float]:
    """Zero where the difference is defined, NaN where it is not."""
    mrl, te, half_life = (float("nan") if np.isnan(value) else 0.0 for value in difference)
    return mrl, te, half_life


# ---- proposals: every place of a transcript at which an edit of the kind could be made


def _upstream_augs(transcript: Transcript) -> list[int]:
    utr = transcript.sequence[: transcript.cds_start]
    return [i for i in range(len(utr) - 2) if utr[i : i + 3] == "AUG"]


def _one_substitution(codon: str, target: str) -> int | None:
    """Index of the one GC-preserving substitution that turns a codon into another, if there is one."""
    differing = [i for i in range(3) if codon[i] != target[i]]
    if len(differing) == 1 and _SAME_GC.get(codon[differing[0]]) == target[differing[0]]:
        return differing[0]
    return None


def _make_aug(transcript: Transcript) -> Iterator[Edit]:
    for i in range(transcript.cds_start - 2):
        at = _one_substitution(transcript.sequence[i : i + 3], "AUG")
        if at is not None:
            yield Edit((i + at,), "AUG"[at])


def _break_aug(transcript: Transcript) -> Iterator[Edit]:
    for i in _upstream_augs(transcript):
        for at, letter in enumerate("AUG"):
            yield Edit((i + at,), _SAME_GC[letter])


def _shift_frame(transcript: Transcript) -> Iterator[Edit]:
    """Move a uAUG by one nucleotide: AUGn becomes nAUG, or nAUG becomes AUGn."""
    sequence = transcript.sequence
    for i in _upstream_augs(transcript):
        if i + 4 <= transcript.cds_start:
            yield _rotation(sequence, i, sequence[i + 3] + sequence[i : i + 3])
        if i >= 1:
            yield _rotation(sequence, i - 1, sequence[i : i + 3] + sequence[i - 1])


def _rotation(sequence: str, start: int, letters: str) -> Edit:
    """Edit that writes ``letters`` at ``start``, listing only the positions that change."""
    changed = [k for k, letter in enumerate(letters) if sequence[start + k] != letter]
    return Edit(tuple(start + k for k in changed), "".join(letters[k] for k in changed))


def _give_stop(transcript: Transcript) -> Iterator[Edit]:
    for i in _upstream_augs(transcript):
        for j in range(i + 3, transcript.cds_start - 2, 3):
            codon = transcript.sequence[j : j + 3]
            if codon in STOPS:
                break
            for stop in STOPS:
                at = _one_substitution(codon, stop)
                if at is not None:
                    yield Edit((j + at,), stop[at])


def _weaken_uaug(transcript: Transcript) -> Iterator[Edit]:
    for i in _upstream_augs(transcript):
        if i >= 3 and transcript.sequence[i - 3] in "AG":
            yield Edit((i - 3,), _SAME_GC[transcript.sequence[i - 3]])


def _weaken_main(transcript: Transcript) -> Iterator[Edit]:
    at = transcript.cds_start - 3
    if at >= 0 and transcript.sequence[at] in "AG":
        yield Edit((at,), _SAME_GC[transcript.sequence[at]])


def _swap_synonymous(transcript: Transcript) -> Iterator[Edit]:
    """Third positions whose GC-preserving replacement keeps the amino acid; start and stop codon stay."""
    for i in range(transcript.cds_start + 3, transcript.cds_end - 5, 3):
        codon = transcript.sequence[i : i + 3]
        other = codon[:2] + _SAME_GC.get(codon[2], codon[2])
        if other != codon and GENETIC_CODE.get(codon) == GENETIC_CODE.get(other):
            yield Edit((i + 2,), other[2])


def _pentamers(transcript: Transcript, in_nonamer: bool) -> Iterator[Edit]:
    """AUUUA to AUCUA for the 3'UTR pentamers inside, or outside, a nonamer UUAUUUAWW."""
    sequence = transcript.sequence
    if transcript.cds_end < 0:
        return
    for i in range(transcript.cds_end, len(sequence) - 4):
        if sequence[i : i + 5] == "AUUUA":
            context = sequence[max(i - 2, transcript.cds_end) : i + 7]
            nonamer = len(context) == 9 and context[:2] == "UU" and set(context[7:]) <= {"A", "U"}
            if nonamer == in_nonamer:
                yield Edit((i + 2,), "C")


def _break_nonamer(transcript: Transcript) -> Iterator[Edit]:
    yield from _pentamers(transcript, in_nonamer=True)


def _break_pentamer(transcript: Transcript) -> Iterator[Edit]:
    yield from _pentamers(transcript, in_nonamer=False)


def _transpose_to_cpg(transcript: Transcript) -> Iterator[Edit]:
    for i in range(transcript.cds_start - 1):
        if transcript.sequence[i : i + 2] == "GC":
            yield Edit((i, i + 1), "CG")


_PROPOSALS: Mapping[str, Callable[[Transcript], Iterator[Edit]]] = {
    "uaug_make": _make_aug,
    "uaug_break": _break_aug,
    "uaug_shift_frame": _shift_frame,
    "uorf_give_stop": _give_stop,
    "uaug_kozak_minus3": _weaken_uaug,
    "main_kozak_minus3": _weaken_main,
    "synonymous_swap": _swap_synonymous,
    "are_break": _break_nonamer,
    "cpg_transposition": _transpose_to_cpg,
    "pentamer_break": _break_pentamer,
}


# ---- shams: edits of the same form elsewhere in the same region


def _region(transcript: Transcript, position: int) -> range:
    """Positions of the region (5'UTR, CDS, 3'UTR) that a position lies in."""
    if position < transcript.cds_start:
        return range(transcript.cds_start)
    end = transcript.cds_end if transcript.cds_end >= 0 else len(transcript.sequence)
    return range(transcript.cds_start, end) if position < end else range(end, len(transcript.sequence))


def _same_substitution(transcript: Transcript, edit: Edit) -> Iterator[Edit]:
    """Replace the same letter by the same letter elsewhere."""
    old = transcript.sequence[edit.positions[0]]
    for i in _region(transcript, edit.positions[0]):
        if transcript.sequence[i] == old and i != edit.positions[0]:
            yield Edit((i,), edit.letters)


def _other_rotation(transcript: Transcript, edit: Edit) -> Iterator[Edit]:
    """Another trinucleotide moved by one, with as many letters changed."""
    sequence = transcript.sequence
    for i in range(transcript.cds_start - 3):
        rotation = _rotation(sequence, i, sequence[i + 3] + sequence[i : i + 3])
        if len(rotation.positions) == len(edit.positions) and rotation != edit:
            yield rotation


def _exchange_synonymous(transcript: Transcript, edit: Edit) -> Iterator[Edit]:
    """Make the same swap twice in opposite directions, so that the codon composition stays."""
    swaps = list(_swap_synonymous(transcript))
    for swap in swaps:
        codon = transcript.sequence[swap.positions[0] - 2 : swap.positions[0] + 1]
        for back in swaps:
            other = transcript.sequence[back.positions[0] - 2 : back.positions[0] + 1]
            if codon[:2] == other[:2] and codon[2] == back.letters and other[2] == swap.letters:
                yield Edit((swap.positions[0], back.positions[0]), swap.letters + back.letters)


def _outside_elements(transcript: Transcript, edit: Edit) -> Iterator[Edit]:
    """Make the same substitution in the 3'UTR, away from pentamers and polyadenylation signals."""
    sequence = transcript.sequence
    for sham in _same_substitution(transcript, edit):
        at = sham.positions[0]
        around = sequence[max(at - 5, 0) : at + 6]
        if not any(motif in around for motif in ("AUUUA", "AAUAAA", "AUUAAA")):
            yield sham


_SHAMS: Mapping[str, Callable[[Transcript, Edit], Iterator[Edit]]] = {
    "uaug_shift_frame": _other_rotation,
    "synonymous_swap": _exchange_synonymous,
    "are_break": _outside_elements,
}


# ---- the table


def _row(
    pair_id: str,
    kind: str,
    role: str,
    matched_pair: str | None,
    transcript: Transcript,
    family: object,
    pair: _Pair,
) -> dict[str, object]:
    row: dict[str, object] = {
        "pair_id": pair_id,
        "kind": kind,
        "role": role,
        "matched_pair": matched_pair,
        "source": transcript.sequence,
        "target": pair.target,
        "positions": list(pair.edit.positions),
        "family": family,
        "cds_start": transcript.cds_start,
        "cds_end": pd.NA if transcript.cds_end < 0 else transcript.cds_end,
    }
    return row | {
        f"true_difference_{name}": value for name, value in zip(PHENOTYPES, pair.difference, strict=True)
    }


def _typed(rows: list[dict[str, object]]) -> pd.DataFrame:
    text = ["pair_id", "kind", "role", "matched_pair", "source", "target", "positions", "family"]
    numbers = [f"true_difference_{name}" for name in PHENOTYPES]
    table = pd.DataFrame(rows, columns=pd.Index([*text, "cds_start", "cds_end", *numbers]))
    return table.astype({"cds_start": "Int64", "cds_end": "Int64"} | dict.fromkeys(numbers, "float64"))
