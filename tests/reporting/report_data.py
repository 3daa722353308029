"""A small finished analysis: simulated reporters, planted detectors as features, and the tables that real analyses of them give."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import scipy.sparse

from helix_sae.mrna.properties import compute_properties
from helix_sae.mrna.simulator import simulate_constructs
from helix_sae.mrna.tokens import tokenize_table
from helix_sae.reporting.windows import CodedCorpus
from helix_sae.statistics.splits import split_by_cluster

SITES = ("layers.0.mixer", "layers.2.mixer")
N_FEATURES = 24
UAUG, CODON, GC, NOISE, DEAD, MARKER = 3, 5, 7, 11, 13, 17


@cache
def table() -> pd.DataFrame:
    """240 reporter constructs in 80 families, with measured and computed properties."""
    made = simulate_constructs(240, np.random.default_rng(5), utr_length=(30, 60), n_per_family=3)
    frame = pd.DataFrame(
        {
            "sequence_id": [f"construct_{i:04d}" for i in range(len(made))],
            "sequence": made["sequence"],
            "cds_start": made["cds_start"].astype("Int64"),
            "cds_end": made["cds_end"].astype("Int64"),
            "source": np.where(np.arange(len(made)) % 4 == 0, "library B", "library A"),
            "cluster": made["family"].astype(str),
            "functional_mrl": made["mrl"],
        }
    )
    computed = compute_properties(frame)
    frame = frame.join(computed[[c for c in computed if computed[c].notna().any()]])
    parts = split_by_cluster(frame["cluster"], {"discovery": 0.6, "validation": 0.4}, 0)
    return frame.assign(split=parts.to_numpy())


@cache
def token_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, nucleotide and is_nucleotide of every token."""
    tokens = tokenize_table(table())
    offsets = np.concatenate([[0], np.cumsum([len(t.ids) for t in tokens])]).astype(np.int64)
    nucleotide = np.concatenate([t.nucleotide for t in tokens])
    return offsets, nucleotide, np.concatenate([t.is_nucleotide for t in tokens])


@cache
def codes(site: str) -> scipy.sparse.csr_array:
    """Codes with some planted features: uAUGs, codon starts, GC runs, noise, one dead, one on codon markers only."""
    offsets, nucleotide, real = token_rows()
    rng = np.random.default_rng(SITES.index(site))
    dense = np.zeros((offsets[-1], N_FEATURES), dtype=np.float32)
    for i, row in enumerate(table().itertuples()):
        here = slice(offsets[i], offsets[i + 1])
        at, sequence = nucleotide[here], row.sequence
        letters = np.array(list(sequence))[at]
        ends_aug = np.array([sequence[max(0, p - 2) : p + 1] == "AUG" and p < row.cds_start for p in at])
        dense[here, UAUG] = ends_aug * rng.uniform(2, 4, len(at))
        dense[here, CODON] = ((at >= row.cds_start) & ((at - row.cds_start) % 3 == 0)) * rng.uniform(
            1, 2, len(at)
        )
        gc = np.isin(letters, ["G", "C"])
        dense[here, GC] = gc * np.convolve(gc, np.ones(5), "same") / 5
    noise = rng.random(dense.shape) < 0.03
    quiet = [UAUG, CODON, GC, DEAD, MARKER]
    noise[:, quiet] = False
    dense[noise] = rng.exponential(1, int(noise.sum())).astype(np.float32)
    dense[~real] = 0
    dense[~real, MARKER] = 1
    return scipy.sparse.csr_array(dense)


@cache
def decoder(site: str) -> np.ndarray:
    """Unit decoder directions; the last feature nearly repeats the first."""
    made = np.random.default_rng(7 + SITES.index(site)).normal(size=(N_FEATURES, 16))
    made[-1] = made[0] + 0.1 * made[-1]
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@cache
def corpus(site: str) -> CodedCorpus:
    """The codes with the sequences that they belong to."""
    offsets, nucleotide, is_nucleotide = token_rows()
    return CodedCorpus(table(), codes(site), offsets, nucleotide, is_nucleotide)
