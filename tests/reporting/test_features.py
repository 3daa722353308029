"""A row a living feature with what each part found, and an AnnData over all sites that single-cell tools take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from helix_sae.datasets.codes import SequenceCodesDataset
from helix_sae.reporting.features import feature_table, joined_anndata

SITES = ("layers.0.mixer", "layers.2")


def var(n: int = 5, dead: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "feature": range(n),
            "density": np.linspace(0.1, 0.5, n),
            "max_activation": 2.0,
            "mean_when_active": 1.0,
            "alive": [i != dead for i in range(n)],
            "stability": [1.0, 0.5, np.nan, 0.0, 1.0],
            "certified": ["yes", "no", "unknown", "no", "yes"],
        }
    )


def found() -> dict[str, pd.DataFrame]:
    key = {"site": SITES[0], "feature": 1}
    associations = pd.DataFrame(
        [
            {**key, "property": "functional_mrl", "effect": 0.9, "q_value": 0.01, "validation_effect": 0.9, "replicated": False},
            {**key, "property": "structural_gc_content", "effect": -0.5, "q_value": 0.02, "validation_effect": -0.4, "replicated": True},
        ]
    )  # fmt: skip
    concepts = pd.DataFrame(
        [{**key, "concept": "start_codon", "f1": 0.4}, {**key, "concept": "uaug", "f1": 0.7}]
    )
    side = {"oriented": 0.3, "low": 0.1, "high": 0.5}
    effects = pd.DataFrame(
        [
            {**key, **{f"discovery_{k}": v for k, v in side.items()}, **{f"validation_{k}": v / 10 for k, v in side.items()}, "selected": True, "confirmed": True, "q_value": 0.01},
            {"site": SITES[1], "feature": "error", **{f"{s}_{k}": 9.0 for s in ("discovery", "validation") for k in side}, "selected": True, "confirmed": True, "q_value": 0.0},
            {"site": SITES[1], "feature": "4", **{f"discovery_{k}": v for k, v in side.items()}, **{f"validation_{k}": np.nan for k in side}, "selected": False, "confirmed": False, "q_value": np.nan},
        ]
    )  # fmt: skip
    circuit = pd.DataFrame([{"site": SITES[1], "feature": "4"}])
    causes = pd.DataFrame(
        [
            {**key, "kind": "kozak", "effect": 0.1, "confirmed": True},
            {**key, "kind": "uaug_make", "effect": -0.5, "confirmed": True},
            {"site": SITES[1], "feature": 4, "kind": "kozak", "effect": 0.9, "confirmed": False},
        ]
    )
    return {
        "significant": associations,
        "concepts": concepts,
        "effects": effects,
        "circuit": circuit,
        "causes": causes,
    }


def rows(**parts: Any) -> pd.DataFrame:
    return feature_table({site: var() for site in SITES}, **parts).set_index("name")


def test_every_living_feature_has_a_row_and_a_name_of_its_own() -> None:
    table = rows()
    assert list(table.index) == [
        "L0.mixer.0",
        "L0.mixer.1",
        "L0.mixer.2",
        "L0.mixer.4",
        "L2.0",
        "L2.1",
        "L2.2",
        "L2.4",
    ]
    assert table.loc["L0.mixer.2", "certified"] == "unknown"
    assert "effect" not in table, "a part that was not run has no column"


def test_the_strongest_replicated_finding_of_each_part() -> None:
    row = rows(**found()).loc["L0.mixer.1"]
    assert (row["best_concept"], row["best_concept_f1"]) == ("uaug", 0.7)
    assert (row["best_property"], row["association"]) == ("structural_gc_content", -0.4)
    assert bool(row["association_replicated"])
    assert row["causes"] == "uaug_make, kozak"
    assert (row["effect"], row["effect_tested"], row["effect_confirmed"]) == (pytest.approx(0.03), True, True)


def test_what_was_not_tested_says_so() -> None:
    row = rows(**found()).loc["L2.4"]
    assert (row["effect"], row["effect_tested"]) == (pytest.approx(0.3), False)
    assert row["in_circuit"]
    assert pd.isna(row["causes"])
    assert not rows(**found()).loc["L0.mixer.1", "in_circuit"]


def codes(n: int = 60) -> dict[str, anndata.AnnData]:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"mrl": rng.normal(size=n), "group": pd.Categorical(rng.choice(["high", "low"], n))},
        index=[f"s{i}" for i in range(n)],
    )
    made: dict[str, anndata.AnnData] = {}
    for site in SITES:
        x = rng.gamma(1.0, size=(n, 5)) * (rng.random((n, 5)) < 0.6)
        data = anndata.AnnData(scipy.sparse.csr_array(x), obs=obs.copy(), var=var().set_axis(list("abcde")))
        data.layers["max"] = scipy.sparse.csr_array(2 * x)
        data.obsm["codon_usage"] = pd.DataFrame(rng.random((n, 4)), index=obs.index, columns=list("wxyz"))
        data.uns["site"] = site
        made[site] = data
    return made


def test_all_sites_side_by_side(tmp_path: Path) -> None:
    of = codes()
    joined = joined_anndata(of, feature_table({site: var() for site in SITES}, **found()))
    assert joined.var_names.is_unique
    assert list(joined.var_names[:2]) == ["L0.mixer.0", "L0.mixer.1"]
    column = joined[:, "L2.4"].X.toarray().ravel()
    assert np.array_equal(column, of["layers.2"].X.toarray()[:, 4])
    assert np.array_equal(joined[:, "L2.4"].layers["max"].toarray().ravel(), 2 * column)
    dataset = SequenceCodesDataset(filepath=str(tmp_path / "codes"))
    dataset.save({"all_sites": joined})
    back = dataset.load()["all_sites"]
    assert back.var.loc["L0.mixer.1", "best_concept"] == "uaug"
    assert back.obsm["codon_usage"].shape == (60, 4)


@pytest.mark.filterwarnings("ignore")
def test_single_cell_tools_take_it() -> None:
    scanpy = pytest.importorskip("scanpy")
    data = joined_anndata(codes(), feature_table({site: var() for site in SITES}, **found()))
    scanpy.pp.pca(data, n_comps=4)
    scanpy.pp.neighbors(data, n_neighbors=5)
    scanpy.tl.umap(data)
    scanpy.tl.rank_genes_groups(data, "group", method="wilcoxon")
    assert data.obsm["X_umap"].shape == (60, 2)
    assert set(data.uns["rank_genes_groups"]["names"].dtype.names) == {"high", "low"}
