"""What the report says of the autoencoders: held-out quality, and what is left to the model."""

from __future__ import annotations

import pandas as pd

from helix_sae.reporting.document import ReportTable
from helix_sae.reporting.sections import autoencoder_section

METRICS = pd.DataFrame(
    {
        "site": ["layers.0.mixer", "layers.2.mixer"],
        "config": ["topk", "topk"],
        "explained_variance": [0.95, 0.9],
        "l0": [16.0, 16.0],
        "dead_share": [0.01, 0.02],
    }
)
DOWNSTREAM = pd.DataFrame(
    {
        "site": ["layers.0.mixer", "layers.2.mixer"],
        "embedding_cosine": [0.99, 0.97],
        "ce_clean": [1.2, 1.2],
        "ce_recovered": [0.98, 0.93],
    }
)
PROBING = pd.DataFrame(
    {
        "site": ["layers.0.mixer"] * 2,
        "concept": ["uaug"] * 2,
        "probe": ["1 feature", "raw activations"],
        "k": [1, 0],
        "auc": [0.8, 0.95],
    }
)
STABILITY = pd.DataFrame(
    {
        "site": ["layers.0.mixer", "layers.2.mixer"],
        "n_seeds": 5,
        "n_tokens": 1000,
        "n_features": [90, 110],
        "n_certified": [80, 70],
        "share_certified": [80 / 90, 70 / 110],
        "share_back": [0.91, 0.7],
        "share_cosine": [0.95, 0.8],
        "pw_mcc": [0.93, 0.8],
        "pw_mcc_lowest": [0.91, 0.78],
        "chance_cosine": [0.3, 0.3],
        "chance_back": [0.0, 0.01],
    }
)
SUBSPACES = pd.DataFrame(
    {
        "site": ["layers.0.mixer", "layers.2.mixer"],
        "n_unstable": [10.0, 40.0],
        "dimensions": [3.0, 5.0],
        "share_variance": [0.02, 0.11],
        "overlap": [0.9, 0.5],
        "overlap_by_chance": [0.6, 0.6],
    }
)


def tables(section: object) -> list[ReportTable]:
    return [block for block in section.blocks if isinstance(block, ReportTable)]


def test_downstream_probing_and_stability_are_told() -> None:
    section = autoencoder_section(
        METRICS, None, chosen="topk", downstream=DOWNSTREAM, probing=PROBING, stability=STABILITY
    )
    (said,) = [s for s in section.statements if "Run on from the reconstruction" in s.text]
    assert "at least 0.97" in said.text
    assert "93 to 98 %" in said.text.replace("\xa0", " ").replace("\u202f", " ")
    assert said.tone == "finding"
    cells = [[str(cell) for row in table.rows for cell in row] for table in tables(section)]
    assert any("0.980" in row and "0.930" in row for row in cells)
    assert any("0.800" in row and "0.950" in row for row in cells)
    assert any("0.910" in row and "0.930" in row for row in cells)


def said_of_stability(**tables: pd.DataFrame) -> list:
    section = autoencoder_section(METRICS, None, chosen="topk", **tables)
    words = ("certified", "seeds", "come back")
    return [s for s in section.statements if any(word in s.text for word in words)]


def test_the_headline_says_what_is_certified_and_what_chance_gives() -> None:
    (said,) = said_of_stability(stability=STABILITY)
    assert said.headline
    assert said.tone == "finding"
    assert said.text.replace("\xa0", " ").startswith("150 of 200 living features (75 %) are certified")
    assert "three quarters of 4 seeds" in said.text
    (tile,) = autoencoder_section(METRICS, None, chosen="topk", stability=STABILITY).tiles[1:]
    assert (tile.label, tile.weak) == ("Features certified", False)
    (poor,) = said_of_stability(stability=STABILITY.assign(n_certified=[1, 2]))
    assert poor.tone == "weak"


def test_too_few_seeds_are_said_to_be_too_few() -> None:
    none = float("nan")
    few = STABILITY.assign(n_seeds=3, share_certified=none, n_certified=0)
    (said,) = said_of_stability(stability=few)
    assert "With 3 seeds no feature can be certified" in said.text
    assert "79 %" in said.text.replace("\xa0", " ")
    one = STABILITY.assign(n_seeds=1, share_certified=none, share_back=none, pw_mcc=none)
    (said,) = said_of_stability(stability=one)
    assert "unknown" in said.text
    assert (said.tone, said.headline) == ("absent", True)
    section = autoencoder_section(METRICS, None, chosen="topk", stability=one)
    assert len(section.tiles) == 1


def test_what_does_not_come_back_is_a_subspace() -> None:
    _, said = said_of_stability(stability=STABILITY, subspaces=SUBSPACES)
    assert "2 to 11 %" in said.text.replace("\xa0", " ").replace("\u202f", " ")
    assert "at 1 of 2" in said.text
    assert said.tone == "weak"
    all_back = SUBSPACES.assign(n_unstable=0.0, overlap=float("nan"))
    assert len(said_of_stability(stability=STABILITY, subspaces=all_back)) == 1


def test_a_loss_is_called_weak() -> None:
    poor = DOWNSTREAM.assign(ce_recovered=[0.98, 0.4])
    section = autoencoder_section(METRICS, None, chosen="topk", downstream=poor)
    (said,) = [s for s in section.statements if "Run on from the reconstruction" in s.text]
    assert said.tone == "weak"


def test_without_a_head_nothing_is_said_of_cross_entropy() -> None:
    section = autoencoder_section(
        METRICS, None, chosen="topk", downstream=DOWNSTREAM.assign(ce_recovered=float("nan"))
    )
    (said,) = [s for s in section.statements if "Run on from the reconstruction" in s.text]
    assert "cross-entropy" not in said.text


def test_nothing_was_measured() -> None:
    section = autoencoder_section(METRICS, None, chosen="topk", stability=STABILITY.head(0))
    assert len(tables(section)) == 1
    assert autoencoder_section(None, None).warnings is not None
