"""Suggested labels: the first rule that holds, and none where none does."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_sae.reporting.labels import suggestions

SITE = "layers.2.mixer"


def features(**columns: Any) -> pd.DataFrame:
    row = {
        "best_concept": "upstream_start", "best_concept_f1": 0.8, "best_property": "structural_gc_content",
        "association": -0.4, "association_replicated": True,
    }  # fmt: skip
    return pd.DataFrame([{"site": SITE, "feature": 1, **row, **columns}])


def causes(*rows: tuple[str, str, float, bool]) -> pd.DataFrame:
    columns = ["kind", "role", "effect", "confirmed"]
    return pd.DataFrame(rows, columns=columns).assign(site=SITE, feature="1")


RIVALS = pd.DataFrame({"concept": "upstream_start", "kind": ["sae", "pca", "3-mers"], "f1": [0.99, 0.5, 0.7]})


def test_a_confirmed_cause_comes_first_and_a_decoy_is_none() -> None:
    table = causes(
        ("decoy_swap", "decoy", 9.0, True),
        ("kozak", "effect", -0.5, True),
        ("uaug_make", "effect", 2.0, False),
    )
    found = suggestions(features(), table, RIVALS)
    assert found["suggested"].tolist() == ["carries kozak"]
    assert found["rule"].tolist() == ["confirmed cause, effect −0.500"]


def test_a_concept_has_to_be_told_better_than_by_anything_else() -> None:
    found = suggestions(features(), None, RIVALS).iloc[0]
    assert found["suggested"] == "upstream start"
    assert found["rule"] == "concept with F1 0.80, beyond the best other detector (3-mers 0.70)"
    for changed, rivals in (
        (features(best_concept_f1=0.69), RIVALS),  # a rival does better
        (features(best_concept_f1=0.45), RIVALS.assign(f1=0.1)),  # told badly
        (features(), None),  # nothing to compare with
    ):
        assert suggestions(changed, None, rivals)["suggested"].tolist() == ["less GC content"]


def test_an_association_has_to_be_replicated() -> None:
    bare = features(best_concept=None, best_concept_f1=None)
    assert suggestions(bare)["rule"].tolist() == ["strongest replicated association, −0.40"]
    assert suggestions(bare.assign(association=0.4))["suggested"].tolist() == ["more GC content"]
    assert suggestions(bare.assign(association_replicated="False"))["suggested"].tolist() == [""]
    assert suggestions(bare[["site", "feature"]])["rule"].tolist() == [""]
