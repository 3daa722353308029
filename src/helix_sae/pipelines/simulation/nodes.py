"""Nodes of the simulation pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helix_sae.pipelines.simulation.parameters import CorpusParameters, SimulationParameters

_DEMO, _PAIRS, _LABELS, _PRETRAINING, _HELDOUT = range(5)
"""Streams of random numbers, so that changing the size of one table leaves the others as they were."""

_PHENOTYPES = ("mrl", "te", "half_life")

_DECIMALS = 9
"""Of what is shipped: processors differ in the last bit of a logarithm, and the files should not."""


def simulate_demo(parameters: SimulationParameters) -> pd.DataFrame:
    """The demo's sequences with their noiseless and measured phenotypes."""
    return _simulate(parameters.demo, _stream(parameters.seed, _DEMO))


def export_demo(
    demo: pd.DataFrame, parameters: SimulationParameters
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """The demo as records of the raw JSON schema, and beside them the noiseless value of each."""
    from helix_sae.mrna.export import to_records

    rng = _stream(parameters.seed, _LABELS)
    records = to_records(demo, rng, missing_fraction=parameters.missing_fraction)
    noiseless = [f"{name}_true" for name in _PHENOTYPES]
    return records, _settled(demo[["sequence", "family", *noiseless]])


def simulate_pairs(demo: pd.DataFrame, parameters: SimulationParameters) -> pd.DataFrame:
    """Counterfactual, sham and decoy pairs of the demo's sequences, with their true differences."""
    from helix_sae.mrna.counterfactuals import counterfactual_pairs

    rng = _stream(parameters.seed, _PAIRS)
    return _settled(counterfactual_pairs(demo, rng, n_per_kind=parameters.pairs_per_kind))


def state_truth() -> pd.DataFrame:
    """The causes and decoys of the simulator."""
    from helix_sae.mrna.truth import truth_table

    return truth_table()


def simulate_pretraining(parameters: SimulationParameters) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and unseen tables of ``helix_mini``; their phenotypes carry no measurement noise."""
    training = _simulate(parameters.pretraining, _stream(parameters.seed, _PRETRAINING))
    heldout = _simulate(parameters.heldout, _stream(parameters.seed, _HELDOUT))
    return _noiseless_table(training, "training"), _noiseless_table(heldout, "heldout")


def _simulate(corpus: CorpusParameters, rng: np.random.Generator) -> pd.DataFrame:
    """Constructs and transcripts in one frame; ``kind`` says which."""
    from helix_sae.mrna.simulator import simulate_constructs, simulate_transcripts

    parts: list[pd.DataFrame] = []
    common: dict[str, Any] = {"n_per_family": corpus.n_per_family}
    if corpus.reporters:
        uniform = corpus.uniform_fraction
        part = simulate_constructs(corpus.reporters, rng, utr_length=50, uniform_fraction=uniform, **common)
        parts.append(part.assign(kind="reporters"))
    if corpus.constructs:
        part = simulate_constructs(corpus.constructs, rng, utr_length=corpus.construct_length, **common)
        parts.append(part.assign(kind="constructs"))
    if corpus.transcripts:
        parts.append(simulate_transcripts(corpus.transcripts, rng, **common).assign(kind="transcripts"))
    for part in parts:
        part["family"] = part["kind"] + "_" + part["family"]
    return pd.concat(parts, ignore_index=True)


def _noiseless_table(frame: pd.DataFrame, prefix: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sequence_id": [f"{prefix}_{i:06d}" for i in range(len(frame))],
            "sequence": frame["sequence"],
            "cds_start": frame["cds_start"],
            "cds_end": frame["cds_end"],
            "source": frame["kind"],
            "cluster": frame["family"],
            **{f"functional_{name}": frame[f"{name}_true"] for name in _PHENOTYPES},
        }
    )


def _settled(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with its numbers rounded, and without negative zeros."""
    numbers = frame.select_dtypes("float64")
    return frame.assign(**{str(name): numbers[name].round(_DECIMALS) + 0.0 for name in numbers})


def _stream(seed: int, which: int) -> np.random.Generator:
    return np.random.default_rng([seed, which])
