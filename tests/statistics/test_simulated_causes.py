"""On simulated sequences, associations find the causes that were planted, and let go of what goes through GC alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from helix_sae.mrna.encoding import count_motif, parse_motif
from helix_sae.mrna.properties import compute_properties
from helix_sae.mrna.regions import regions_of
from helix_sae.mrna.simulator import simulate_constructs, simulate_transcripts
from helix_sae.statistics.associate import associate
from helix_sae.statistics.splits import split_by_cluster

PARTS = {"discovery": 0.6, "validation": 0.4}


def associations_of(sequences: pd.DataFrame, phenotype: str) -> pd.DataFrame:
    """Raw sequence properties, and two that go along with the GC content of the 5'UTR alone, against a phenotype.

    One row for each that was significant, raw or partial, with its estimates on the validation families.
    """
    properties = compute_properties(sequences)
    regions = regions_of(sequences)
    nowhere = np.zeros(regions.n, dtype=np.int64)
    cpg = count_motif(regions.flat, parse_motif("CG"), nowhere, regions.start)
    gc = properties["structural_gc_5utr"]
    properties["decoy_cpg"] = cpg / regions.start
    properties["decoy_gc"] = gc + np.random.default_rng(7).normal(0, 0.3 * gc.std(), len(gc))
    tested = [c for c in properties if properties[c].notna().all() and properties[c].nunique() > 1]
    table = pd.DataFrame(
        {
            "cluster": sequences["family"],
            "source": "simulation",
            "structural_gc_5utr": gc,
            "structural_length": properties["structural_length"],
            f"functional_{phenotype}": sequences[phenotype],
        }
    )
    found = associate(
        {"sequence": sparse.csr_array(properties[tested].to_numpy())},
        table,
        split_by_cluster(table["cluster"], PARTS, 0).to_numpy(),
        properties=[f"functional_{phenotype}"],
        confounders=["structural_gc_5utr", "structural_length"],
    )
    carried = pd.concat([found.significant, found.masked])
    return carried.assign(name=[tested[i] for i in carried["feature"]]).set_index("name")


def assert_replicated(table: pd.DataFrame, causes: dict[str, int]) -> None:
    for name, sign in causes.items():
        row = table.loc[name]
        assert row["replicated"], name
        assert np.sign(row["effect"]) == np.sign(row["validation_effect"]) == sign, name


@pytest.fixture(scope="module")
def without_upstream_augs() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return associations_of(
        simulate_constructs(
            6000, rng, utr_length=(40, 100), uniform_fraction=0.0, upstream_fraction=0.0, n_per_family=2
        ),
        "mrl",
    )


def test_classes_of_upstream_augs() -> None:
    """Out of frame and contained ones cost ribosomes; those in frame do not (they go along with fewer of the others)."""
    rng = np.random.default_rng(1)
    table = associations_of(simulate_constructs(2500, rng, utr_length=(25, 120), n_per_family=2), "mrl")
    assert_replicated(table, {"regulatory_uaug_overlapping_count": -1, "regulatory_uaug_contained_count": -1})
    assert "regulatory_uaug_in_frame_count" not in table.index or (
        table.loc["regulatory_uaug_in_frame_count", "effect"] > 0
    )


def test_gc_of_the_5utr(without_upstream_augs: pd.DataFrame) -> None:
    assert_replicated(without_upstream_augs, {"structural_gc_5utr": -1})


def test_kozak_context_shows_once_gc_is_held_fixed(without_upstream_augs: pd.DataFrame) -> None:
    """A strong context is rich in G and C, which lower the load: what it adds is hidden without the adjustment."""
    row = without_upstream_augs.loc["regulatory_kozak_score"]
    assert row["partial_replicated"]
    assert row["partial_effect"] > 0
    assert row["validation_partial_effect"] > 0


@pytest.mark.parametrize("decoy", ["decoy_gc", "decoy_cpg"])
def test_gc_only_decoys_lose_their_association(without_upstream_augs: pd.DataFrame, decoy: str) -> None:
    row = without_upstream_augs.loc[decoy]
    assert row["replicated"], "the decoy has something to lose"
    assert abs(row["partial_effect"]) <= 0.2 * abs(row["effect"])
    assert abs(row["validation_partial_effect"]) <= 0.2 * abs(row["validation_effect"])
    assert not row["partial_significant"]


def test_au_rich_elements_and_codon_optimality() -> None:
    rng = np.random.default_rng(3)
    transcripts = simulate_transcripts(2000, rng, n_per_family=2)
    half_life = associations_of(transcripts, "half_life")
    assert_replicated(half_life, {"regulatory_are_nonamer_count": -1, "regulatory_csc": 1})
    assert half_life.loc["regulatory_csc", "partial_replicated"]
    efficiency = associations_of(transcripts, "te")
    assert_replicated(efficiency, {"regulatory_codon_adaptation": 1})
