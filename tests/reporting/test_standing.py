"""What is certified, what carries a cause and what is beaten, in words made from the tables."""

from __future__ import annotations

import pandas as pd

from helix_sae.reporting.standing import standing

STABILITY = {
    "layers.0.mixer": pd.DataFrame({"alive": [True, True, False], "certified": ["yes", "no", "no"]}),
    "layers.2.mixer": pd.DataFrame({"alive": [True, True], "certified": ["yes", "yes"]}),
}


def causes(**changes: object) -> pd.DataFrame:
    """Two certified features carry the first cause, one that is not the second; nothing carries the third."""
    rows = [
        ("layers.0.mixer", 0, "uaug_make", "effect", 0.2, True, "yes"),
        ("layers.2.mixer", 1, "uaug_make", "effect", -0.9, True, "yes"),
        ("layers.2.mixer", 0, "uaug_make", "effect", 0.1, True, "yes"),
        ("layers.0.mixer", 1, "uaug_break", "effect", 0.5, True, "no"),
        ("layers.0.mixer", 0, "main_kozak_minus3", "effect", 0.0, False, "yes"),
        ("layers.0.mixer", 0, "cpg_transposition", "decoy", 0.0, False, "yes"),
    ]
    columns = ["site", "feature", "kind", "role", "effect", "confirmed", "certified"]
    return pd.DataFrame(rows, columns=columns).assign(**changes)


def rivals(*rows: tuple[str, float, float]) -> pd.DataFrame:
    table = pd.DataFrame([("sae", 0.0, 0.0), *rows], columns=["dictionary", "lead_low", "lead_high"])
    return table.assign(ranking="exact", lead=(table["lead_low"] + table["lead_high"]) / 2)


def test_the_words_are_those_of_the_tables():
    beaten = rivals(("pca", 0.1, 0.3), ("ica", -0.1, 0.1), ("das", -0.3, -0.1))
    certified, carried, none, against, ceiling = [s.text for s in standing(STABILITY, causes(), beaten)]
    assert certified == "3 of 4 living features (75 %) are certified."
    assert (
        carried == "Certified features carry uaug make (L2.mixer.1, L0.mixer.0 and 1 more), each by itself."
    )
    assert none == "None of them is confirmed for uaug break and main kozak minus3."
    assert "come closer to the full effect than principal components (lead +0.20 [0.10, 0.30])" in against
    assert "are no better than independent components" in against
    assert "the ceiling of any choice, come closer (lead -0.20" in ceiling.replace("−", "-")


def test_what_is_not_known_is_said_to_be_so():
    words = [s.text for s in standing(None, None, None)]
    assert words == [
        "Whether the features come back in other seeds is not known.",
        "Features were not tested for single causes.",
        "They were not compared with other directions.",
    ]
    unknown = {"layers.0.mixer": pd.DataFrame({"certified": ["unknown"]})}
    decoy = causes(certified="unknown", confirmed=True)
    words = [s.text for s in standing(unknown, decoy, rivals(("pca", -0.3, -0.1)))]
    assert words[0].endswith("not known.")
    assert words[1].startswith("Features carry uaug make")
    assert words[2] == "Some move the prediction for a decoy: cpg transposition."
    assert "come less close to it than principal components" in words[3]
