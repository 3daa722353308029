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
        "site": ["layers.0.mixer"],
        "config": ["topk"],
        "other": ["topk_seed1"],
        "matched_cosine": [0.81],
        "share_stable": [0.7],
        "random_cosine": [0.35],
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
    assert any("0.810" in row for row in cells)


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
