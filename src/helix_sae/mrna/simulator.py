"""Simulated mRNAs whose phenotypes have known causes.

Every phenotype is a formula of the sequence (:mod:`helix_sae.mrna.mechanism`) plus noise, so each record
comes with its noiseless value and every edit with its true effect. Sequences come in families, a mother and
its diverged copies, that share most of their sequence: the unit by which data have to be split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from helix_sae.errors import ConfigurationError
from helix_sae.mrna import generation, mechanism
from helix_sae.mrna.encoding import FlatSequences, decode, reverse_complement
from helix_sae.mrna.tables import MIRNA_SEEDS

REPORTER_CODING = "AUGGGCGAA"
"""Start of the reporter's coding sequence that follows a construct's 5'UTR (Sample et al. 2019)."""

UTR5_GC = (0.58, 0.10)
"""Mean and standard deviation over genes of the GC content of 5'UTRs."""

EXPRESSION_NOISE_SD = 0.3


def simulate_constructs(
    n: int,
    rng: np.random.Generator,
    *,
    utr_length: int | tuple[int, int] = 50,
    coding: str = REPORTER_CODING,
    uniform_fraction: float = 0.5,
    upstream_fraction: float = 0.5,
    n_per_family: int = 1,
    noise_sd: float = mechanism.MRL_NOISE_SD,
) -> pd.DataFrame:
    """Simulate 5'UTR reporter constructs with a measured mean ribosome load.

    Parameters
    ----------
    n : int
        Number of constructs.
    rng : numpy.random.Generator
        Source of randomness; the same state gives the same table.
    utr_length : int or (int, int)
        Length of the 5'UTR in nucleotides, or the inclusive range of a uniform draw (one draw per family).
    coding : str
        Constant coding flank after the 5'UTR; begins with the main start codon.
    uniform_fraction : float
        Share of families with uniformly random 5'UTRs, as in the reporter library; the others are Markov
        sequences with a GC content of N(0.58, 0.10).
    upstream_fraction : float
        Share of the Markov families that keep (or are given) an upstream AUG; it is removed from the others.
    n_per_family : int
        Members per family: a mother and ``n_per_family - 1`` copies at 5 to 10 % divergence.
    noise_sd : float
        Standard deviation of the measurement.

    Returns
    -------
    DataFrame
        ``sequence``, ``cds_start``, ``cds_end`` (NA: the coding flank runs on), ``family``, ``mrl_true``,
        ``mrl``.

    Raises
    ------
    ConfigurationError
        When a count is below 1 or a range descends.
    """
    low, high = (utr_length, utr_length) if isinstance(utr_length, int) else utr_length
    _check_counts(n, n_per_family, utr_length=(low, high))
    n_families = -(-n // n_per_family)
    lengths = rng.integers(low, high, size=n_families, endpoint=True)
    uniform = rng.random(n_families) < uniform_fraction
    mothers = _five_utrs(lengths, upstream_fraction, ~uniform, rng)
    at_random = np.repeat(uniform, lengths)
    mothers.codes[at_random] = rng.integers(0, 4, size=int(at_random.sum()), dtype=np.uint8)
    family = np.repeat(np.arange(n_families), n_per_family)[:n]
    utrs = generation.diverge(mothers, family, rng)
    sequences = [utr + coding for utr in decode(utrs)]
    mrl_true = mechanism.mean_ribosome_load(sequences, utrs.lengths.tolist())
    return pd.DataFrame(
        {
            "sequence": sequences,
            "cds_start": pd.array(utrs.lengths, dtype="Int64"),
            "cds_end": pd.array([pd.NA] * n, dtype="Int64"),
            "family": [f"construct_{index:06d}" for index in family],
            "mrl_true": mrl_true,
            "mrl": mrl_true + rng.normal(0.0, noise_sd, size=n),
        }
    )


class _Genes(NamedTuple):
    """Mothers of transcript families and the borders of their coding sequences."""

    transcripts: FlatSequences
    cds_start: Int[np.ndarray, " n_families"]
    cds_end: Int[np.ndarray, " n_families"]


def simulate_transcripts(
    n: int,
    rng: np.random.Generator,
    *,
    utr5_median: float = 120.0,
    utr5_limits: tuple[int, int] = (25, 400),
    n_codons: tuple[int, int] = (40, 120),
    utr3_length: tuple[int, int] = (60, 300),
    upstream_fraction: float = 0.5,
    n_per_family: int = 4,
    mirna_seeds: Mapping[str, str] = MIRNA_SEEDS,
) -> pd.DataFrame:
    """Simulate whole transcripts with ribosome load, translation efficiency and half-life.

    Parameters
    ----------
    n : int
        Number of transcripts.
    rng : numpy.random.Generator
        Source of randomness; the same state gives the same table.
    utr5_median, utr5_limits : float, (int, int)
        Median and inclusive limits of the log-normal length of the 5'UTR, in nucleotides.
    n_codons : (int, int)
        Inclusive range of the number of sense codons, the start codon included.
    utr3_length : (int, int)
        Inclusive range of the length of the 3'UTR in nucleotides; at least 40, to hold its elements.
    upstream_fraction : float
        Share of families whose 5'UTR has an upstream AUG.
    n_per_family : int
        Members per family: a mother and ``n_per_family - 1`` copies at 5 to 10 % divergence.
    mirna_seeds : mapping of str to str
        Seeds of the miRNAs whose sites are planted and count.

    Returns
    -------
    DataFrame
        ``sequence``, ``cds_start``, ``cds_end``, ``family``, then ``mrl``, ``te`` (ln translation
        efficiency), ``half_life`` (ln hours) and ``expression_level`` (ln protein per transcription, the sum
        of the two before), each with its noiseless twin ``*_true``.

    Raises
    ------
    ConfigurationError
        When a count is below 1 or a range descends or lies too low.
    """
    _check_counts(n, n_per_family, utr5_limits=utr5_limits, n_codons=n_codons, utr3_length=utr3_length)
    if utr3_length[0] < 40:
        raise ConfigurationError(
            f"utr3_length starts at {utr3_length[0]}; a 3'UTR needs 40 nt to hold its elements"
        )
    n_families = -(-n // n_per_family)
    lengths = generation.truncated_log_normal(n_families, utr5_median, 0.6, utr5_limits, rng)
    utr5 = _five_utrs(lengths, upstream_fraction, np.ones(n_families, dtype=np.bool_), rng)
    cds = generation.coding_sequences(
        rng.integers(*n_codons, size=n_families, endpoint=True),
        rng.uniform(0.2, 2.0, size=n_families),
        rng.normal(0.0, 0.7, size=n_families),
        rng,
    )
    utr3 = _three_utrs(rng.integers(*utr3_length, size=n_families, endpoint=True), mirna_seeds, rng)
    genes = _Genes(generation.join([utr5, cds, utr3]), utr5.lengths, utr5.lengths + cds.lengths)
    family = np.repeat(np.arange(n_families), n_per_family)[:n]
    copies = generation.diverge(genes.transcripts, family, rng, coding=(genes.cds_start, genes.cds_end))
    return _measured(decode(copies), genes, family, mirna_seeds, rng)


def _measured(
    sequences: list[str],
    genes: _Genes,
    family: Int[np.ndarray, " n"],
    mirna_seeds: Mapping[str, str],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Attach noiseless and noisy phenotypes to transcripts."""
    starts, ends = genes.cds_start[family], genes.cds_end[family]
    true = mechanism.phenotypes(sequences, starts.tolist(), ends.tolist(), mirna_seeds)
    columns: dict[str, object] = {
        "sequence": sequences,
        "cds_start": pd.array(starts, dtype="Int64"),
        "cds_end": pd.array(ends, dtype="Int64"),
        "family": [f"gene_{index:06d}" for index in family],
    }
    noiseless: dict[str, tuple[Float[np.ndarray, " n"], float]] = {
        "mrl": (true.mrl, mechanism.MRL_NOISE_SD),
        "te": (true.te, mechanism.TE_NOISE_SD),
        "half_life": (true.half_life, mechanism.HALF_LIFE_NOISE_SD),
        "expression_level": (true.te + true.half_life, EXPRESSION_NOISE_SD),
    }
    for name, (value, noise_sd) in noiseless.items():
        columns[f"{name}_true"] = value
        columns[name] = value + rng.normal(0.0, noise_sd, size=len(value))
    return pd.DataFrame(columns)


def _five_utrs(
    lengths: Int[np.ndarray, " n"],
    upstream_fraction: float,
    eligible: Bool[np.ndarray, " n"],
    rng: np.random.Generator,
) -> FlatSequences:
    """Markov 5'UTRs of which about ``upstream_fraction`` of the eligible ones have an upstream AUG."""
    utrs = generation.markov_sequences(lengths, rng.normal(*UTR5_GC, size=len(lengths)), rng)
    present = rng.random(len(lengths)) < upstream_fraction
    return FlatSequences(generation.set_upstream_augs(utrs, present, eligible, rng), utrs.offsets)


def _three_utrs(
    lengths: Int[np.ndarray, " n"], mirna_seeds: Mapping[str, str], rng: np.random.Generator
) -> FlatSequences:
    """AU-rich 3'UTRs with Poisson numbers of AU-rich elements and miRNA sites, and a poly(A) signal."""
    n = len(lengths)
    utrs = generation.markov_sequences(lengths, rng.normal(0.40, 0.06, size=n), rng)
    sites = [reverse_complement(seed) + "A" for seed in mirna_seeds.values()]
    nonamers = ["UUAUUUA" + a + b for a in "AU" for b in "AU"]
    for words, rate in ((["AUUUA"], 0.4), (nonamers, 0.7), (sites, 0.5)):
        record = np.repeat(np.arange(n), rng.poisson(rate if words else 0.0, size=n))
        widest = max(map(len, words), default=0)
        # The last 35 nt are kept for the polyadenylation signal.
        room = np.maximum(lengths[record] - 35 - widest, 0)
        at = utrs.offsets[:-1][record] + rng.integers(0, room, endpoint=True)
        generation.plant(utrs.codes, at, words, rng.integers(0, max(len(words), 1), size=len(record)))
    signal = rng.choice(3, size=n, p=[0.59, 0.12, 0.29])
    at = utrs.offsets[1:] - 6 - rng.integers(15, 25, size=n, endpoint=True)
    generation.plant(utrs.codes, at, ["AAUAAA", "AUUAAA"], signal)
    return utrs


def _check_counts(n: int, n_per_family: int, **ranges: tuple[int, int]) -> None:
    """Raise when a count is below 1 or a range is empty."""
    for name, value in (("n", n), ("n_per_family", n_per_family)):
        if value < 1:
            raise ConfigurationError(f"{name} is {value}; it has to be at least 1")
    for name, (low, high) in ranges.items():
        if not 1 <= low <= high:
            raise ConfigurationError(f"{name} is ({low}, {high}); it has to ascend and begin at 1 or more")
