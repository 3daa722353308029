"""One feature in a notebook: what is said of it, and where it fires."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import report_data
from html_checks import Page

from helix_sae.errors import ConfigurationError
from helix_sae.left_out import LeftOut
from helix_sae.reporting.show import show_feature
from helix_sae.sae.codes import TokenCodes

SITE, NAME = report_data.SITES[0], f"L0.mixer.{report_data.UAUG}"


def load(entry: str) -> Any:
    """The entries of a catalog that one feature is shown from."""
    table = report_data.table()
    offsets, nucleotide, is_nucleotide = report_data.token_rows()
    row = {"name": NAME, "site": SITE, "feature": report_data.UAUG, "density": 0.031, "max_activation": 4.0}
    row |= {"stability": 0.75, "certified": "yes", "best_concept": "upstream_start", "best_concept_f1": 0.9}
    row |= {"best_property": "functional_<mrl>", "association": -0.5, "association_replicated": True}
    return {
        "features": pd.DataFrame(
            [row, {**row, "name": "L0.mixer.999", "effect": 0.25, "effect_confirmed": False}]
        ),
        "sparse_codes": {
            SITE: TokenCodes(
                report_data.codes(SITE), offsets, table["sequence_id"].to_numpy(dtype=object), is_nucleotide
            )
        },
        "activations": SimpleNamespace(all_rows=lambda: SimpleNamespace(nucleotide=nucleotide)),
        "mrna_table": table.iloc[::-1],
    }[entry]


def test_what_is_known_of_a_feature_and_where_it_fires() -> None:
    shown = show_feature(load, NAME, n_windows=3, flank=8)
    assert repr(shown).splitlines()[0] == (
        f"{NAME}. Active at 3.1 % of the nucleotides, up to 4.00. Found again in 75 % of the other seeds, certified. "
        "Best concept: upstream start (F1 0.90). Goes along with <mrl> (−0.50)."
    )
    page = Page(shown._repr_html_())
    assert len([a for a in page.all("div") if a["class"] == "seq"]) == len(shown.texts) == 3
    assert "Goes along with <mrl>" in page.text, "what is hostile is text"
    # A planted detector of AUGs: each window has one where the activation lies.
    assert all("AUG" in text for text in shown.texts)


def test_a_feature_that_is_not_there() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no living feature 'L0\.mixer\.998' among 2\. Did you mean L0\.mixer\.999"
    ):
        show_feature(load, "L0.mixer.998")
    absent = LeftOut("autoencoders", "there was nothing to train on")
    with pytest.raises(ConfigurationError, match="no features to show: there was nothing to train on"):
        show_feature(lambda _: absent.table(), NAME)
