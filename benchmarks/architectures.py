"""All architectures on helix_mini's demo activations at matched L0, and what the model makes of their reconstructions.

The demo records are tabulated as in a run, and activations taken from the mixers and from the residual stream after them.
Discovery clusters are trained on, validation clusters measured on. Where sparsity is bought with a coefficient
(L1, Gated, JumpReLU), the coefficient is found first, site by site: two trainings of the full length, then ``--refine`` more at
the interpolated value; each SAE is then trained like the others. One JSON line an SAE, and at the end the table in Markdown::

    python benchmarks/architectures.py                       # the four mixers, all architectures
    python benchmarks/architectures.py --sites residual --architectures default
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from helix_sae.models.helix.loading import load_helix
from helix_sae.models.helix.model import HelixModel
from helix_sae.mrna.readers import read_sequences
from helix_sae.mrna.tokens import tokenize_table
from helix_sae.pipelines.ingestion.nodes import tabulate
from helix_sae.pipelines.ingestion.parameters import IngestionParameters
from helix_sae.pipelines.sae_training.judge import by_hash
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters
from helix_sae.sae import (
    ArrayBatches,
    SaeKey,
    downstream_measures,
    estimate_scaling,
    parse_sae_config,
    run_spliced,
    train_saes,
)

ROOT = Path(__file__).resolve().parent.parent
COEFFICIENTS: dict[str, tuple[str, tuple[float, float]]] = {
    "relu": ("l1_coefficient", (1e-3, 1.5e-3)),
    "relu_tied": ("l1_coefficient", (1.2e-3, 1.8e-3)),
    "gated": ("l1_coefficient", (1.7e-3, 2.5e-3)),
    "jumprelu": ("l0_coefficient", (1e-3, 4e-3)),
}
CHOOSING = ("topk", "batchtopk", "matryoshka")
SHOWN = (
    "explained_variance",
    "l0",
    "dead_share",
    "dense_share",
    "cosine",
    "ce_recovered",
    "embedding_cosine",
)


class Data:
    """Activations of the demo, by site, of the two parts."""

    def __init__(self, model: HelixModel, table: pd.DataFrame, sites: list[str]) -> None:
        self.model, self.table, self.sites = model, table, sites
        tokens = tokenize_table(table)
        discovery = (table["split"] == "discovery").to_numpy()
        parts: dict[bool, dict[str, list[np.ndarray]]] = {
            side: {site: [] for site in sites} for side in (True, False)
        }
        for index in model.batches(tokens):
            ids, _ = model.tensors([tokens[i] for i in index])
            captured = model.capture(ids, sites)
            for row, i in enumerate(index):
                for site in sites:
                    kept = captured[site][row, : tokens[i].ids.size].numpy().copy()
                    parts[bool(discovery[i])][site].append(kept)
        self.train = {site: np.concatenate(parts[True][site]) for site in sites}
        self.held = {site: np.concatenate(parts[False][site]) for site in sites}

    def batches(self, site: str, size: int, epochs: int) -> ArrayBatches:
        return ArrayBatches({site: self.train[site]}, size, seed=0, epochs=epochs)

    def held_out(self, site: str) -> list[dict[str, torch.Tensor]]:
        return list(ArrayBatches({site: self.held[site]}, 8192))


def demo_table() -> pd.DataFrame:
    values = parameters_of("ingestion")
    return tabulate(read_sequences(str(ROOT / "data/01_raw/demo")), IngestionParameters(**values))[0]


def parameters_of(pipeline: str) -> dict[str, Any]:
    """As a run would see them."""
    seed = yaml.safe_load((ROOT / "conf/base/globals.yml").read_text())["seed"]
    text = (ROOT / f"conf/base/{pipeline}/parameters.yml").read_text().replace('"${globals:seed}"', str(seed))
    return yaml.safe_load(text)[pipeline]


def matched(data: Data, site: str, names: list[str], common: dict[str, Any], options: Any) -> dict[str, Any]:
    """Settings of each architecture that give about ``options.l0`` active features."""
    chosen: dict[str, dict[str, Any]] = {
        name: {"architecture": name, "k": options.l0, **common} for name in names if name in CHOOSING
    }
    tried: dict[str, dict[float, float]] = {name: {} for name in names if name in COEFFICIENTS}
    wanted = {name: list(COEFFICIENTS[name][1]) for name in tried}
    for _ in range(1 + options.refine if tried else 0):
        configs = {
            (name, value): {"architecture": name, COEFFICIENTS[name][0]: value, **common}
            for name, values in wanted.items()
            for value in values
        }
        for (name, value), l0 in trained_l0(data, site, configs, options).items():
            tried[name][value] = l0
        wanted = {name: [interpolated(points, options.l0)] for name, points in tried.items()}
    for name, (value,) in wanted.items():
        chosen[name] = {"architecture": name, COEFFICIENTS[name][0]: value, **common}
    return chosen


def trained_l0(
    data: Data, site: str, configs: dict[tuple[str, float], dict[str, Any]], options: Any
) -> dict[tuple[str, float], float]:
    """Held-out L0 after a training as long as the final one: an L1 autoencoder grows sparser all the time."""
    parsed = {f"{name} {value}": parse_sae_config(values) for (name, value), values in configs.items()}
    batches = data.batches(site, options.batch, options.epochs)
    found = train_saes(batches, parsed, holdout=data.held_out(site), log_every=10**9).evaluations
    l0 = {key: max(found[SaeKey(site, f"{key[0]} {key[1]}")].summary["l0"], 0.05) for key in configs}
    for (name, value), active in l0.items():
        print(
            json.dumps(
                {"benchmark": "search", "site": site, "architecture": name, "value": value, "l0": active}
            )
        )
    return l0


def interpolated(points: dict[float, float], l0: float) -> float:
    """The coefficient for an L0 by the line through the two points around it (or nearest to it), log against log."""
    by_distance = sorted(points, key=lambda value: abs(np.log(points[value] / l0)))
    above = [value for value in by_distance if points[value] >= l0]
    below = [value for value in by_distance if points[value] < l0]
    first, second = (above[0], below[0]) if above and below else by_distance[:2]
    slope = np.log(points[first] / points[second]) / np.log(first / second)
    if not slope < 0:  # no more than noise between them
        return first
    step = np.log(l0 / points[first]) / slope
    return min(float(first * np.exp(np.clip(step, -2.0, 2.0))), 1.0)  # more no configuration takes


def measure(data: Data, site: str, configs: dict[str, dict[str, Any]], options: Any) -> list[dict[str, Any]]:
    parsed = {name: parse_sae_config(values) for name, values in configs.items()}
    start = time.perf_counter()
    batches = data.batches(site, options.batch, options.epochs)
    result = train_saes(batches, parsed, holdout=data.held_out(site), log_every=10**9)
    seconds = time.perf_counter() - start
    held = data.table[data.table["split"] == "validation"].set_index("sequence_id", drop=False)
    tokens = tokenize_table(held.loc[by_hash(held["sequence_id"].tolist())[: options.sequences]])
    mean = {site: estimate_scaling(torch.from_numpy(data.train[site]), site).mean}
    rows: list[dict[str, Any]] = []
    for name, values in configs.items():
        sae = result.saes[SaeKey(site, name)]
        downstream = downstream_measures(run_spliced(data.model, tokens, {site: sae}, mean)).iloc[0]
        row = {
            "benchmark": "architectures",
            "site": site,
            "config": values,
            **result.evaluations[SaeKey(site, name)].summary,
            **downstream.drop("site").to_dict(),
            "seconds_of_all": seconds,
        }
        print(json.dumps(row, default=float), flush=True)
        rows.append({"architecture": name, **row})
    return rows


def markdown(rows: list[dict[str, Any]], columns: tuple[str, ...] = SHOWN) -> str:
    """Means over the sites."""
    table = pd.DataFrame(rows).groupby("architecture", sort=False)[list(columns)].mean()
    lines = [f"| architecture | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for name, values in table.iterrows():
        lines.append(
            f"| {name} | "
            + " | ".join(f"{v:.1f}" if c == "l0" else f"{v:.3f}" for c, v in values.items())
            + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", nargs="+", default=[*CHOOSING, *COEFFICIENTS])
    parser.add_argument("--sites", nargs="+", default=["mixers"], help="mixers, residual, or names of sites")
    parser.add_argument("--l0", type=int, default=32)
    parser.add_argument("--refine", type=int, default=2, help="further trainings to find each coefficient")
    parser.add_argument("--expansion", type=float, help="default: that of the default configuration")
    parser.add_argument("--epochs", type=int, help="default: those of the default configuration")
    parser.add_argument("--batch", type=int, help="default: that of the default configuration")
    parser.add_argument("--sequences", type=int, default=60, help="held-out sequences to run the model on")
    options = parser.parse_args()
    defaults = parameters_of("sae_training")
    default = defaults["saes"][defaults["chosen"]]
    options.batch = options.batch or defaults["batch_size"]
    common = {
        "expansion_factor": options.expansion or default["expansion_factor"],
        "data_start": default.get("data_start", 0.0),
    }
    model = load_helix(ROOT / "data/06_models/helix_mini")
    mixers = list(model.default_sites)
    named = {"mixers": mixers, "residual": [site.removesuffix(".mixer") for site in mixers]}
    sites = [site for name in options.sites for site in named.get(name, [name])]
    data = Data(model, demo_table(), sites)
    training = SaeTrainingParameters.model_validate({**defaults, "batch_size": options.batch})
    options.epochs = options.epochs or training.n_epochs(len(data.train[sites[0]]))
    rows: list[dict[str, Any]] = []
    for site in sites:
        names = [name for name in options.architectures if name != "default"]
        configs = matched(data, site, names, common, options)
        if "default" in options.architectures:
            configs["default"] = dict(default)
        rows += measure(data, site, configs, options)
    print(markdown(rows), file=sys.stderr)


if __name__ == "__main__":
    main()
