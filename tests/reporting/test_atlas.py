"""Pages of features: each number is that of the tables and codes, each window that of its sequence, each link leads somewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_data
from html_checks import HOSTILE, self_contained
from report_data import CODON, DEAD, GC, MARKER, NOISE, SITES, UAUG

from helix_sae.errors import ConfigurationError
from helix_sae.reporting.atlas import AtlasTables, FeaturePage, feature_pages, render_atlas, window_markup
from helix_sae.reporting.windows import CodedCorpus, Window

FEATURES = (UAUG, CODON, GC, NOISE, DEAD, MARKER)


def chosen(features: tuple[int, ...] = FEATURES, **changes: Any) -> pd.DataFrame:
    row = {
        "site": SITES[0],
        "feature": list(features),
        "chosen_for": "association",
        "reason": "no. 1 for mrl, replicated",
    }
    return pd.DataFrame({**row, **changes})


def effects() -> pd.DataFrame:
    """The first confirmed, the second tested in vain, the third measured on the discovery pairs only."""
    n = 3
    return pd.DataFrame(
        {
            "site": SITES[0], "feature": [str(f) for f in (UAUG, CODON, GC)], "estimator": "exact",
            "selected": [True, True, False], "confirmed": [True, False, False], "q_value": [0.001, 0.4, np.nan],
            "discovery_oriented": [0.5, 0.2, -0.1], "discovery_low": [0.4, -0.1, -0.2], "discovery_high": [0.6, 0.5, 0.0],
            "validation_oriented": [0.45, 0.1, np.nan], "validation_low": [0.3, -0.2, np.nan], "validation_high": [0.6, 0.4, np.nan],
            "discovery_n_pairs": [30] * n, "validation_n_pairs": [20, 20, 0], "discovery_n_clusters": [10] * n,
            "validation_n_clusters": [7, 7, 0],
        }
    )  # fmt: skip


def significant() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "site": SITES[0], "feature": UAUG, "property": ["regulatory_uaug_count", *(f"functional_p{i}" for i in range(1, 8))],
            "validation_effect": [-0.9, 0.1, np.nan, 0.3, 0.2, 0.4, 0.5, 0.6], "validation_low": 0.05,
            "validation_high": 0.7, "q_value": 0.01, "replicated": [True, True, None, False, True, True, True, True],
        }
    )  # fmt: skip


def concepts() -> tuple[pd.DataFrame, pd.DataFrame]:
    matches = pd.DataFrame(
        {
            "site": SITES[0], "feature": UAUG, "concept": ["common", "upstream_start"], "f1": [0.9, 0.8],
            "f1_always": [0.88, 0.1], "precision": 0.7, "recall": 0.9,
        }
    )  # fmt: skip
    rivals = pd.DataFrame(
        {"concept": ["upstream_start"] * 3, "kind": ["sae", "neurons", "pca"], "f1": [0.8, 0.3, 0.4]}
    )
    return matches, rivals


def atlas_tables(table: pd.DataFrame | None = None, **changes: Any) -> AtlasTables:
    matches, rivals = concepts()
    given = {
        "decoders": {site: report_data.decoder(site) for site in SITES},
        "significant": significant(),
        "concepts": matches,
        "baselines": rivals,
        "effects": effects(),
        "circuit": pd.DataFrame({"site": [SITES[0]], "feature": [str(UAUG)]}),
    }
    return AtlasTables(chosen() if table is None else table, **{**given, **changes})


@pytest.fixture(scope="module")
def made() -> dict[int, FeaturePage]:
    pages = feature_pages(
        {SITES[0]: report_data.corpus(SITES[0])},
        atlas_tables(),
        target="functional_mrl",
        n_windows=6,
        flank=12,
    )
    assert [page.feature for page in pages] == list(FEATURES)
    return {page.feature: page for page in pages}


@pytest.fixture(scope="module")
def html(made: dict[int, FeaturePage]) -> str:
    return render_atlas(list(made.values()), title="Atlas", subtitle="s", target="functional_mrl", flank=12)


def test_the_numbers_of_a_page(made: dict[int, FeaturePage]):
    dense = report_data.codes(SITES[0]).toarray()
    offsets, _, real = report_data.token_rows()
    for feature, page in made.items():
        active = (dense[:, feature] > 0) & real
        values = dense[active, feature]
        assert page.n_active == active.sum()
        assert page.density == pytest.approx(active.sum() / real.sum())
        assert page.n_sequences == len(
            np.unique(np.searchsorted(offsets, np.flatnonzero(active), side="right"))
        )
        if len(values):
            assert page.maximum == values.max()
            assert page.median == pytest.approx(np.median(values))
            assert len(page.bars) == 36
    assert made[DEAD].logo is None
    assert made[DEAD].top == made[DEAD].sampled == made[DEAD].bars == []
    assert made[MARKER].marker_share == 1.0


def test_the_windows_are_the_strongest_first(made: dict[int, FeaturePage]):
    page, table = made[UAUG], report_data.table().set_index("sequence_id")
    assert [row.label for row in page.top] == ["1", "2", "3", "4", "5", "6"]
    peaks = [row.peak for row in page.top]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] == page.maximum
    shown = [row.sequence_id for row in [*page.top, *page.sampled]]
    assert table.loc[shown, "cluster"].is_unique
    for row in page.top:
        assert row.value == f"{table.loc[row.sequence_id, 'functional_mrl']:.2f}".replace("-", "−")
        # The G of an AUG before the start codon, counted backwards from it.
        start = int(table.loc[row.sequence_id, "cds_start"])
        place = int(row.place.split()[0].replace("−", "-"))
        assert table.loc[row.sequence_id, "sequence"][start + place - 2 : start + place + 1] == "AUG"
    bands = ["99–100 %", "90–99 %", "75–90 %", "50–75 %", "25–50 %", "0–25 %"]
    assert [row.label for row in page.sampled] == [
        b for b in bands if b in {row.label for row in page.sampled}
    ]
    assert len(page.sampled) >= 4


def test_places_count_from_the_start_codon_without_a_zero(made: dict[int, FeaturePage]):
    table = report_data.table().set_index("sequence_id")
    for row in made[CODON].top:
        place = int(row.place.split()[0])
        assert row.place.startswith("+")
        assert (place - 1) % 3 == 0
        assert table.loc[row.sequence_id, "cds_start"] >= 0


def test_effects_are_held_out_where_they_were_tested(made: dict[int, FeaturePage]):
    confirmed, tried, discovery = (made[f].effect for f in (UAUG, CODON, GC))
    assert confirmed is not None
    assert tried is not None
    assert discovery is not None
    assert (confirmed["estimate"], confirmed["side"], confirmed["confirmed"]) == (0.45, "held-out", True)
    assert (tried["estimate"], tried["confirmed"], tried["q_value"]) == (0.1, False, 0.4)
    assert (discovery["estimate"], discovery["side"], discovery["n_pairs"]) == (-0.1, "discovery", 30)
    assert np.isnan(discovery["q_value"])
    assert [made[f].effect["in_circuit"] for f in (UAUG, CODON, GC)] == [True, False, False]
    assert made[NOISE].effect is None


def test_associations_and_concepts(made: dict[int, FeaturePage]):
    page = made[UAUG]
    assert [a["validation_effect"] for a in page.associations] == [-0.9, 0.6, 0.5, 0.4, 0.3, 0.2]
    # By what is gained over saying yes everywhere; the best other detector beside it.
    assert (page.concepts[0]["concept"], page.concepts[0]["rival"]) == ("upstream_start", ("pca", 0.4))
    assert page.concepts[1]["concept"] == "common"
    assert made[NOISE].associations == made[NOISE].concepts == []


def test_nearest_features_by_hand(made: dict[int, FeaturePage]):
    decoder = report_data.decoder(SITES[0])
    for feature, page in made.items():
        cosine = decoder @ decoder[feature]
        order = [f for f in np.argsort(-cosine, kind="stable") if f != feature][:6]
        assert [n["feature"] for n in page.nearest] == order
        assert [n["cosine"] for n in page.nearest] == pytest.approx(cosine[order].tolist())
        assert all((n["anchor"] is not None) == (n["feature"] in FEATURES) for n in page.nearest)
    pages = feature_pages({SITES[0]: report_data.corpus(SITES[0])}, atlas_tables(chosen((0,))))
    assert pages[0].nearest[0]["feature"] == report_data.N_FEATURES - 1


def test_the_document(html: str):
    page = self_contained(html)
    assert len(page.all("article")) == len(FEATURES)
    assert {f"#{a['id']}" for a in page.all("article")} <= {a["href"] for a in page.all("a")}
    assert "The feature is active at no nucleotide of these sequences." in page.text
    assert "it fires on codon markers only" in page.text
    assert "It is the leading feature of no concept." in page.text
    assert "No intervention on this feature" in page.text
    assert "pca 0.40" in page.text
    assert [t for t in ("uAUG count", "upstream start") if t in page.text] == ["uAUG count", "upstream start"]
    assert "regulatory_" not in page.text
    assert "upstream_start" not in page.text
    assert "nan" not in page.text.split()


def test_a_feature_that_was_tried_in_vain_is_not_shown_as_confirmed(html: str, made: dict[int, FeaturePage]):
    page = self_contained(html)
    drawn = [a for a in page.all("svg") if a["aria-label"] == "estimate with interval"]
    hollow = [a.get("class") == "hollow" for a in drawn]
    assert hollow[:3] == [False, True, True]  # in the table of contents: confirmed, in vain, discovery only
    assert len(made) == len(FEATURES)


def test_what_is_hostile_stays_text():
    table = report_data.table()
    table = table.assign(
        sequence_id=[f"{HOSTILE}{i}" for i in range(len(table))],
        **{f"functional_{HOSTILE}": table["functional_mrl"]},
    )
    given = report_data.corpus(SITES[0])
    corpus = CodedCorpus(table, given.codes, given.offsets, given.nucleotide, given.is_nucleotide)
    matches, rivals = concepts()
    renamed = {"upstream_start": HOSTILE}
    tables = atlas_tables(
        chosen((UAUG, CODON), site=HOSTILE, chosen_for=HOSTILE, reason=HOSTILE),
        decoders={HOSTILE: report_data.decoder(SITES[0])},
        significant=significant().assign(site=HOSTILE, property=HOSTILE),
        concepts=matches.assign(site=HOSTILE).replace(renamed),
        baselines=rivals.replace(renamed).replace({"pca": HOSTILE}),
        effects=effects().assign(site=HOSTILE, estimator=HOSTILE),
    )
    target = f"functional_{HOSTILE}"
    made = feature_pages({HOSTILE: corpus}, tables, target=target)
    page = self_contained(render_atlas(made, title=HOSTILE, subtitle=HOSTILE, target=target))
    assert HOSTILE not in page.html
    assert page.title == HOSTILE
    titles = [a["title"] for a in page.all("td") if "title" in a]
    assert titles
    assert all(title.startswith(HOSTILE) for title in titles)


def test_letters_of_a_window_are_escaped_and_classed():
    letters = "A<&N"
    window = Window(
        0, "a", 2, None, 1, 9, letters, np.array([0, 1, 2, 4], np.float32), np.zeros(4, np.int8), 2.0
    )
    markup = window_markup(window, 3, 4.0)
    assert markup == (
        '<i style="width: 1.24em"></i><i class="A t0">A</i><i class="N t0 h3 at">&lt;</i>'
        '<i class="N t0 h5">&amp;</i><i class="N t0 h9">N</i>'
    )


def test_shades_without_any_activation():
    window = Window(0, "a", 0, None, 0, 2, "AC", np.zeros(2, np.float32), np.zeros(2, np.int8), 0.0)
    assert window_markup(window, 0, 0.0) == '<i class="A t0 at">A</i><i class="C t0">C</i>'


def test_a_page_is_the_same_whatever_the_order_and_with_the_same_seed():
    corpora = {SITES[0]: report_data.corpus(SITES[0])}
    first = feature_pages(corpora, atlas_tables(chosen((UAUG, DEAD))), seed=3)
    turned = feature_pages(corpora, atlas_tables(chosen((DEAD, UAUG))), seed=3)
    one, same = (render_atlas([page], title="t", subtitle="s") for page in (first[0], turned[1]))
    assert one == same
    assert first[0].sampled
    others = feature_pages(corpora, atlas_tables(chosen((UAUG,))), seed=4)[0].sampled
    assert [row.sequence_id for row in others] != [row.sequence_id for row in first[0].sampled]


def test_features_of_two_sites():
    corpora = {site: report_data.corpus(site) for site in SITES}
    both = chosen((UAUG, UAUG), site=list(SITES))
    made = feature_pages(corpora, atlas_tables(both), n_windows=2)
    assert [page.site for page in made] == list(SITES)
    assert len({page.anchor for page in made}) == 2
    assert made[1].effect is None  # the table of effects is about the first site
    page = self_contained(render_atlas(made, title="t", subtitle="s"))
    said = [picture["alt"] for picture in page.all("img")]
    assert len(said) == len(set(said)) == 2, "no two pictures are described alike"


def test_no_feature_was_chosen():
    page = self_contained(render_atlas(feature_pages({}, atlas_tables(chosen(()))), title="t", subtitle="s"))
    assert "No feature was chosen" in page.text


def test_without_any_table():
    tables = AtlasTables(chosen((UAUG,)), {SITES[0]: report_data.decoder(SITES[0])})
    made = feature_pages({SITES[0]: report_data.corpus(SITES[0])}, tables)
    page = self_contained(render_atlas(made, title="t", subtitle="s"))
    assert "None is significant." in page.text
    assert "No intervention on this feature" in page.text


def test_tables_of_another_run_are_refused():
    with pytest.raises(ConfigurationError, match=r"whose codes are not there \(layers\.0\.mixer\)"):
        feature_pages({SITES[0]: report_data.corpus(SITES[0])}, atlas_tables(chosen((1,), site=SITES[1])))
    with pytest.raises(ConfigurationError, match=r"asks for feature 99 of 'layers\.0\.mixer', which has 24"):
        feature_pages({SITES[0]: report_data.corpus(SITES[0])}, atlas_tables(chosen((1, 99))))


def stability(n_others: int, certified: str) -> pd.DataFrame:
    n = report_data.decoder(SITES[0]).shape[0]
    columns = {
        "stability": 0.75,
        "stability_low": 0.19,
        "stability_high": 0.99,
        "best_cosine": 0.91,
        "correlation": 0.87,
    }
    return pd.DataFrame({"feature": range(n), "n_others": n_others, **columns, "certified": certified})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (stability(4, "yes"), "in 3 of 4 seeds [0.19, 0.99]"),
        (stability(4, "no"), "no: another training may not find it"),
        (stability(2, "unknown"), "unknown: fewer than four other seeds"),
        (None, "Stability unknown: no other seed was trained"),
    ],
)
def test_a_page_says_whether_its_feature_comes_back(table, said):
    given = None if table is None else {SITES[0]: table}
    made = feature_pages(
        {SITES[0]: report_data.corpus(SITES[0])}, atlas_tables(chosen((UAUG,)), stability=given)
    )
    page = self_contained(render_atlas(made, title="t", subtitle="s"))
    assert said in page.text
    assert ("cosine 0.91, correlation on held-out tokens 0.87" in page.text) == (table is not None)
