"""Where activations are a sample of the tokens, everything after the training still sees all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io.core import Version

from helix_sae.activations import Activations
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.datasets.token_codes import TokenCodesDataset
from helix_sae.models.helix.architecture import Architecture, build_network, save_network
from helix_sae.models.registry import ModelHandle, handle_for
from helix_sae.mrna.annotations import annotate_table
from helix_sae.pipelines.correlation.detectors import unit_baselines
from helix_sae.pipelines.correlation.nucleotides import choose_nucleotides
from helix_sae.pipelines.extraction.nodes import extract, whole_of
from helix_sae.pipelines.extraction.parameters import ExtractionParameters
from helix_sae.pipelines.sae_training import judge, nodes
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters
from helix_sae.sae import InputScaling, SparseAutoencoder, TopKConfig, random_autoencoder

SITES = ("layers.0.mixer", "layers.2")


def table(n: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "sequence_id": [f"t{i}" for i in range(n)],
            "sequence": ["".join(rng.choice(list("ACGU"), 40 + 3 * i)) for i in range(n)],
            "cds_start": pd.array([10] * n, dtype="Int64"),
            "cds_end": pd.array([25] * n, dtype="Int64"),
            "split": ["discovery", "validation"] * (n // 2),
        }
    )


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    folder = tmp_path_factory.mktemp("model")
    save_network(build_network(Architecture(), seed=11), folder)  # pyright: ignore[reportCallIssue]
    return handle_for(folder, device="cpu")


def settings(**more: Any) -> ExtractionParameters:
    return ExtractionParameters.model_validate({"sites": list(SITES), "shard_tokens": 150, **more})


def stored(folder: Path, handle: ModelHandle, **more: Any) -> Activations:
    dataset = ActivationsDataset(filepath=str(folder / "a"), version=Version(None, "v"))
    dataset.save(extract(table(), handle, settings(**more)))
    return dataset.load()


def saes(width: int) -> dict[str, SparseAutoencoder]:
    config = TopKConfig(k=3, expansion_factor=2).resolve(width)
    return {
        s: random_autoencoder(config, InputScaling(torch.zeros(width), 1.0), i) for i, s in enumerate(SITES)
    }


def test_codes_of_a_sample_are_of_every_token(tmp_path: Path, handle: ModelHandle) -> None:
    sample = stored(tmp_path, handle, tokens_per_sequence=7)
    assert sample.n_tokens == 7 * len(table())
    dictionaries = saes(sample.widths[SITES[0]])
    plan = nodes.encode(sample, dictionaries, table(), handle, settings())
    dataset = TokenCodesDataset(filepath=str(tmp_path / "c"), version=Version(None, "v"))
    dataset.save(plan)
    codes = dataset.load()
    everything = extract(table(), handle, settings(mode="stream"))
    assert codes[SITES[0]].shape[0] == everything.n_tokens > sample.n_tokens
    exact = nodes.encode(everything, dictionaries, table(), handle, settings()).in_memory()
    for site in SITES:
        np.testing.assert_allclose(
            codes[site].codes.toarray(), exact[site].codes.toarray(), rtol=1e-6, atol=1e-6
        )
    pooled = nodes.pool(codes, dictionaries, table(), handle)
    assert pooled[SITES[1]].n_obs == len(table())

    # A probe's tokens are those of the sample: their codes are what the autoencoder gives for their activations.
    annotations = annotate_table(table())
    probing = SaeTrainingParameters.model_validate(
        {"saes": {"a": {"architecture": "topk", "k": 2}}, "chosen": "a"}
    ).probing
    part = judge._nucleotides(sample, annotations, table(), "discovery", probing)
    for site, sae in dictionaries.items():
        drawn = judge._sample(sample, codes[site], site, part)
        again = sae.encode(torch.from_numpy(drawn.activations)).detach().numpy()
        np.testing.assert_allclose(drawn.codes.toarray(), again, rtol=1e-4, atol=1e-5)

    # Raw neurons as detectors are those of the very nucleotides that the features are matched on.
    chosen = choose_nucleotides(codes[SITES[0]], annotations, 120)
    part_of = whole_of(sample, table(), chosen.sequence_id, handle, settings())
    discovery = np.ones(len(chosen.token), dtype=bool)
    (_, one), (_, other) = (
        next(iter(unit_baselines(given, chosen, discovery))) for given in (part_of, everything)
    )
    for site in SITES:
        np.testing.assert_allclose(one[site].toarray(), other[site].toarray(), rtol=1e-4, atol=1e-5)
