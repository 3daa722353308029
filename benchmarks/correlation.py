"""How fast the correlation pipeline's tests are; one JSON line a case.

    python benchmarks/correlation.py [--quick]

Cases
-----
speed
    4,096 features x 12 properties x 20,000 sequences at 5 % density. ``speedup_vs_scipy_loop`` compares with
    ``scipy.stats`` on a sample of pairs, scaled to all pairs; ``times_one_product`` with one CSR x dense product
    (features x sequences times sequences x properties) of the same shape.
memory
    100,000 sequences: the peak of the process, in a process of its own.
linearity
    Time against the number of non-zeros over a 16-fold range; the exponent is the slope in log-log.
concepts
    Concept matching of 1,024 features with 40 concepts on 200,000 nucleotides.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
from scipy import sparse, stats

from helix_sae.statistics.association import associations
from helix_sae.statistics.concept_matching import match_concepts, prepare_concepts
from helix_sae.statistics.multiple_testing import adjust
from helix_sae.statistics.properties import Property

N_FEATURES, N_PROPERTIES, N_SEQUENCES, DENSITY = 4096, 12, 20_000, 0.05


def features(n_sequences: int, n_features: int, density: float, seed: int = 0) -> sparse.csr_array:
    """Pooled codes as an autoencoder gives them: sparse, positive, untied but for the zeros."""
    rng = np.random.default_rng(seed)
    per_row = round(n_features * density)
    columns = rng.random((n_sequences, n_features), dtype=np.float32).argpartition(per_row, axis=1)[
        :, :per_row
    ]
    columns = np.sort(columns, axis=1).astype(np.int32)
    values = rng.gamma(2.0, size=columns.size).astype(np.float32)
    return sparse.csr_array(
        (values, columns.ravel(), np.arange(0, columns.size + 1, per_row)), shape=(n_sequences, n_features)
    )


def properties(n_sequences: int, seed: int = 1) -> list[Property]:
    """Eight continuous, three binary and one of four classes; a third of them with missing labels."""
    rng = np.random.default_rng(seed)
    made: list[Property] = []
    for index in range(N_PROPERTIES):
        kind = "continuous" if index < 8 else "binary" if index < 11 else "categorical"
        values = {
            "continuous": rng.normal(size=n_sequences),
            "binary": rng.integers(0, 2, n_sequences).astype(float),
            "categorical": rng.integers(0, 4, n_sequences).astype(float),
        }[kind]
        if index % 3 == 0:
            values[rng.random(n_sequences) < 0.2] = np.nan
        made.append(Property(f"property_{index}", "functional", kind, values))
    return made


def scipy_pair(x: np.ndarray, property_: Property) -> float:
    """One pair as one would do it by hand."""
    known = ~np.isnan(property_.values)
    x, y = x[known], property_.values[known]
    if property_.kind == "continuous":
        return float(stats.spearmanr(x, y).pvalue)
    if property_.kind == "binary":
        return float(stats.mannwhitneyu(x[y == 1], x[y == 0], method="asymptotic").pvalue)
    return float(stats.kruskal(*[x[y == c] for c in np.unique(y)]).pvalue)


def fastest(function, repeats: int) -> float:
    """Shortest wall time of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def report(case: str, **numbers: object) -> None:
    """Print one line."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in numbers.items()}
    print(json.dumps({"case": case, **rounded}), flush=True)


def speed(repeats: int, n_pairs: int) -> None:
    """Time all tests, with q-values, against scipy in a loop and against one product."""
    codes, labels = features(N_SEQUENCES, N_FEATURES, DENSITY), properties(N_SEQUENCES)
    associations(codes[:200, :8], [Property(p.name, p.category, p.kind, p.values[:200]) for p in labels])
    total = fastest(lambda: adjust(associations(codes, labels).p_value), repeats)
    dense = np.random.default_rng(2).normal(size=(N_SEQUENCES, N_PROPERTIES))
    by_feature = codes.T.tocsr().astype(np.float64)
    product = fastest(lambda: by_feature @ dense, repeats)
    rng = np.random.default_rng(3)
    chosen = rng.integers(0, N_FEATURES, n_pairs)
    columns = {int(f): codes[:, [f]].toarray().ravel().astype(np.float64) for f in chosen}
    found = associations(codes, labels).p_value
    worst = 0.0
    start = time.perf_counter()
    for index, feature in enumerate(chosen):
        p = scipy_pair(columns[int(feature)], labels[index % N_PROPERTIES])
        worst = max(worst, abs(p - found[feature, index % N_PROPERTIES]))
    loop = (time.perf_counter() - start) / n_pairs * N_FEATURES * N_PROPERTIES
    report(
        "speed",
        n_features=N_FEATURES,
        n_properties=N_PROPERTIES,
        n_sequences=N_SEQUENCES,
        density=DENSITY,
        seconds=total,
        scipy_loop_seconds=loop,
        speedup_vs_scipy_loop=loop / total,
        product_seconds=product,
        times_one_product=total / product,
        largest_difference_in_p=worst,
    )


def memory() -> None:
    """Peak memory of 100,000 sequences, measured in a process that does nothing else."""
    line = subprocess.run(
        [sys.executable, __file__, "--memory-child"], check=True, capture_output=True, text=True
    ).stdout
    print(line.strip(), flush=True)


def memory_child() -> None:
    """Build the codes block by block, test them and say how much memory it took."""
    n = 100_000
    codes = sparse.vstack(
        [features(10_000, N_FEATURES, DENSITY, seed) for seed in range(n // 10_000)], format="csr"
    )
    start = time.perf_counter()
    adjust(associations(codes, properties(n)).p_value)
    report(
        "memory",
        n_sequences=n,
        n_nonzeros=int(codes.nnz),
        seconds=time.perf_counter() - start,
        peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def linearity(repeats: int) -> None:
    """Slope of time against non-zeros at 16-fold growth of the density's numerator, sequences fixed."""
    labels = properties(N_SEQUENCES)
    sizes, times = [], []
    for density in (0.01, 0.02, 0.04, 0.08, 0.16):
        codes = features(N_SEQUENCES, N_FEATURES, density)
        sizes.append(codes.nnz)
        times.append(fastest(lambda codes=codes: associations(codes, labels), repeats))
    exponent = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    report(
        "linearity",
        n_nonzeros=[int(s) for s in sizes],
        seconds=[round(t, 4) for t in times],
        exponent=exponent,
    )


def concepts() -> None:
    """Match 1,024 features with 40 concepts."""
    rng = np.random.default_rng(4)
    n, length, n_concepts = 200_000, 500, 40
    codes = features(n, 1024, 32 / 1024)
    labels = sparse.csr_array(rng.random((n, n_concepts)) < 0.08)
    offsets = np.arange(0, n + 1, length)
    names = [f"concept_{i}" for i in range(n_concepts)]
    split = np.where(np.arange(n // length) % 2, "discovery", "validation")
    prepared = prepare_concepts(labels, names, [i % 2 == 0 for i in range(n_concepts)], offsets)
    start = time.perf_counter()
    match_concepts({"site": codes}, prepared, split, n_shifts=0)
    scored = time.perf_counter() - start
    start = time.perf_counter()
    match_concepts({"site": codes}, prepared, split, n_shifts=100)
    report(
        "concepts",
        n_nucleotides=n,
        n_nonzeros=int(codes.nnz),
        n_concepts=n_concepts,
        seconds_scores=scored,
        seconds_with_100_shifts=time.perf_counter() - start,
        peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sampled pairs")
    parser.add_argument("--memory-child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", stats.ConstantInputWarning)
    if chosen.memory_child:
        memory_child()
        return
    repeats = 2 if chosen.quick else 5
    speed(repeats, n_pairs=60 if chosen.quick else 240)
    memory()
    linearity(repeats)
    concepts()


if __name__ == "__main__":
    main()
