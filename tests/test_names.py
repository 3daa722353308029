"""One function names features."""

from __future__ import annotations

import pytest

from helix_sae.names import anchor_of, feature_name


@pytest.mark.parametrize(
    ("site", "feature", "name"),
    [
        ("layers.4.mixer", 466, "L4.mixer.466"),
        ("layers.4.mixer", "466", "L4.mixer.466"),
        ("layers.12", 3, "L12.3"),
        ("embeddings", 3, "embeddings.3"),
        ("blocks.0.mlp", 3, "blocks.0.mlp.3"),
        ("layers.4.mixer", "error", "L4.mixer error"),
    ],
)
def test_names(site: str, feature: object, name: str) -> None:
    assert feature_name(site, feature) == name


def test_an_anchor_cannot_leave_its_place() -> None:
    assert anchor_of("L4.mixer.466") == "L4.mixer.466"
    assert anchor_of('a/b"><c') == "a_b___c"
