"""What the shipped helix_mini has learned: one JSON line a measure.

Simulated families that it has not seen, and, when a table of real reporter measurements is given, half of it::

    python benchmarks/helix_mini.py --real ../shared/data/random_5utr_mrl.csv

The real table has columns ``utr`` and ``mrl`` (Sample et al. 2019). Its 5'UTRs are read with the start of the reporter's
coding sequence behind them, as at ingestion. Random weights and 3-mer counts stand beside every linear read-out.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from helix_sae.models.helix.architecture import build_network
from helix_sae.models.helix.evaluation import language_score, linear_r2
from helix_sae.models.helix.loading import load_helix
from helix_sae.models.helix.markov import fit_markov
from helix_sae.models.helix.model import HelixModel
from helix_sae.mrna.mechanism import mean_ribosome_load
from helix_sae.mrna.tokens import tokenize_table
from helix_sae.pipelines.pretraining.parameters import PretrainingParameters
from helix_sae.pipelines.simulation.nodes import simulate_pretraining
from helix_sae.pipelines.simulation.parameters import SimulationParameters

ROOT = Path(__file__).resolve().parent.parent
CODING = "AUGGGCGAA"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "data/06_models/helix_mini")
    parser.add_argument("--real", type=Path, help="CSV with columns utr, mrl")
    options = parser.parse_args()
    model = load_helix(options.model)
    parameters = PretrainingParameters(**_parameters("pretraining"))
    untrained = HelixModel(
        build_network(parameters.architecture, seed=12345), fingerprint="random", heads=None
    )
    training, heldout = simulate_pretraining(SimulationParameters(**_parameters("simulation")))
    _language(model, training, heldout, parameters.markov_order)
    for kind, group in heldout.groupby("source"):
        codes, _ = pd.factorize(group["cluster"])
        _read_outs(
            model, untrained, group, "functional_mrl", codes % 2 == 0, f"simulated {kind}, noiseless MRL"
        )
    for name in ("functional_te", "functional_half_life"):
        group = heldout[heldout[name].notna()]
        codes, _ = pd.factorize(group["cluster"])
        _read_outs(model, untrained, group, name, codes % 2 == 0, f"simulated transcripts, noiseless {name}")
    if options.real is not None:
        _real(model, untrained, options.real)


def _language(model: HelixModel, training: pd.DataFrame, heldout: pd.DataFrame, order: int) -> None:
    markov = fit_markov([t.ids for t in tokenize_table(training[training["source"] == "transcripts"])], order)
    score = language_score(model, tokenize_table(heldout[heldout["source"] == "transcripts"]), markov)
    _say(
        case="bits per nucleotide, unseen transcripts",
        helix_mini=score.model,
        **{f"markov_order_{order}": score.markov},
        n=score.n_nucleotides,
    )


def _real(model: HelixModel, untrained: HelixModel, path: Path) -> None:
    raw = pd.read_csv(path)
    utr = raw["utr"].str.replace("T", "U")
    table = pd.DataFrame(
        {"sequence": utr + CODING, "cds_start": utr.str.len(), "cds_end": pd.NA, "mrl": raw["mrl"]}
    )
    half = np.random.default_rng(0).permutation(len(table)) < len(table) // 2
    _read_outs(
        model, untrained, table, "mrl", half, "real random 5'UTRs, measured MRL (refitted on the other half)"
    )
    predicted = mean_ribosome_load(table["sequence"].tolist(), table["cds_start"].tolist())
    formula = linear_r2(
        predicted[half, None],
        table["mrl"][half].to_numpy(),
        predicted[~half, None],
        table["mrl"][~half].to_numpy(),
    )
    _say(case="real random 5'UTRs: the simulator's own formula", r2=formula, n=int((~half).sum()))


def _read_outs(
    model: HelixModel, untrained: HelixModel, table: pd.DataFrame, target: str, half: np.ndarray, case: str
) -> None:
    """Held-out R2 of a linear read-out of each embedding, fitted on one half and judged on the other."""
    tokens = tokenize_table(table)
    y = table[target].to_numpy(dtype=float)
    inputs = {
        "helix_mini": model.embed(tokens),
        "random_weights": untrained.embed(tokens),
        "3-mers": _kmers(table),
    }
    _say(
        case=case,
        **{name: linear_r2(x[half], y[half], x[~half], y[~half]) for name, x in inputs.items()},
        n=int((~half).sum()),
    )


def _kmers(table: pd.DataFrame, k: int = 3) -> np.ndarray:
    words = {"".join(w): i for i, w in enumerate(product("ACGU", repeat=k))}
    counts = np.zeros((len(table), len(words)))
    for row, sequence in enumerate(table["sequence"]):
        for start in range(len(sequence) - k + 1):
            counts[row, words[sequence[start : start + k]]] += 1
    return counts


def _parameters(name: str) -> dict[str, object]:
    return yaml.safe_load((ROOT / f"conf/base/{name}/parameters.yml").read_text(encoding="utf-8"))[name]


def _say(**values: object) -> None:
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}), flush=True)


if __name__ == "__main__":
    main()
