"""Pages of features: each number is that of the tables and codes, each window that of its sequence, each link leads somewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_data
from html_checks import HOSTILE, Atlas, opened
from report_data import CODON, DEAD, GC, MARKER, NOISE, SITES, UAUG

from helix_sae.errors import ConfigurationError
from helix_sae.reporting.atlas import AtlasTables, FeaturePage, feature_pages, window_markup
from helix_sae.reporting.atlas_folder import atlas_folder
from helix_sae.reporting.features import feature_table
from helix_sae.reporting.index import index_columns
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


def pages_of(
    features: tuple[int, ...] = FEATURES, tables: AtlasTables | None = None, **options: Any
) -> list[FeaturePage]:
    """Cards of features of the first site."""
    corpora = {SITES[0]: report_data.corpus(SITES[0])}
    order = [(SITES[0], feature) for feature in features]
    return list(feature_pages(corpora, tables or atlas_tables(), order, **options))


def drawn(made: list[FeaturePage], **options: Any) -> Atlas:
    """The folder of these cards, opened."""
    known = pd.DataFrame([{"name": page.name, "site": page.site} for page in made], columns=["name", "site"])
    given = {"title": "Atlas", "subtitle": "s", **options}
    return opened(atlas_folder(made, known, **given))


@pytest.fixture(scope="module")
def made() -> dict[int, FeaturePage]:
    pages = pages_of(target="functional_mrl", n_windows=6, flank=12)
    assert [page.feature for page in pages] == list(FEATURES)
    return {page.feature: page for page in pages}


@pytest.fixture(scope="module")
def atlas(made: dict[int, FeaturePage]) -> Atlas:
    return drawn(list(made.values()), target="functional_mrl", flank=12)


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
        assert [n["name"] for n in page.nearest] == [f"L0.mixer.{j}" for j in order]
        assert [n["cosine"] for n in page.nearest] == pytest.approx(cosine[order].tolist())
        assert [n["anchor"] is not None for n in page.nearest] == [j in FEATURES for j in order]
    assert pages_of((0,))[0].nearest[0]["name"] == f"L0.mixer.{report_data.N_FEATURES - 1}"


def test_the_cards(atlas: Atlas, made: dict[int, FeaturePage]):
    assert list(atlas.cards) == [page.name for page in made.values()]
    dead, marker, noise, uaug = (atlas.words(f"L0.mixer.{f}") for f in (DEAD, MARKER, NOISE, UAUG))
    assert "The feature is active at no nucleotide of these sequences." in dead
    assert "it fires on codon markers only" in marker
    assert "It is the leading feature of no concept." in noise
    assert "No intervention on this feature" in noise
    assert "pca 0.40" in uaug
    assert "uAUG count" in uaug
    assert "upstream start" in uaug
    for text in (dead, marker, noise, uaug):
        assert "regulatory_" not in text
        assert "upstream_start" not in text
        assert "nan" not in text.split()


def test_windows_of_a_card_are_those_of_the_page(atlas: Atlas, made: dict[int, FeaturePage]):
    name, page = f"L0.mixer.{UAUG}", made[UAUG]
    strongest, sampled = atlas.blocks(name, "windows")
    assert [row[0] for row in strongest[2]] == [row.label for row in page.top]
    for lines, rows in ((strongest, page.top), (sampled, page.sampled)):
        for line, row in zip(lines[2], rows, strict=True):
            assert line[1:5] == [row.missing, row.letters, row.shades, row.tracks]
            assert line[-1] == row.sequence_id
            assert len(row.letters) == len(row.shades) == len(row.tracks)
            assert row.letters[12 - row.missing] == "G"  # of AUG


def test_the_index(atlas: Atlas, made: dict[int, FeaturePage]):
    said = {key: column["said"] for key, column in atlas.columns.items()}
    assert said["name"] == [page.name for page in made.values()]
    assert said["density"] == pytest.approx([page.density for page in made.values()], rel=1e-4)
    letters = dict(zip(said["name"], said["letters"], strict=True))
    assert "AUG" in letters[f"L0.mixer.{UAUG}"]
    assert letters[f"L0.mixer.{DEAD}"] is None
    assert "effect" not in said, "a part that was not run has no column"


def test_a_column_for_everything_that_is_known():
    table = feature_table(
        {SITES[0]: pd.DataFrame({"feature": [UAUG, DEAD], "stability": [1.0, np.nan], "certified": ["yes", "unknown"]})},
        significant=significant().assign(effect=0.1),
        concepts=concepts()[0],
        effects=effects(),
        circuit=pd.DataFrame({"site": [SITES[0]], "feature": [str(UAUG)]}),
        causes=pd.DataFrame({"site": [SITES[0]], "feature": [UAUG], "kind": ["uaug_make"], "effect": [0.4], "confirmed": [True]}),
    )  # fmt: skip
    files = atlas_folder(pages_of((UAUG, DEAD)), table, title="t", subtitle="s", first=[f"L0.mixer.{DEAD}"])
    atlas = opened(files)
    said = {key: column["said"] for key, column in atlas.columns.items()}
    assert atlas.first == [f"L0.mixer.{DEAD}"]
    assert said["stability"] == [1.0, None]
    assert said["certified"] == ["yes", "unknown"]
    assert (said["best_concept"][0], said["best_concept_f1"][0]) == ("common", 0.9)
    assert (said["best_property"][0], said["association"]) == ("uAUG count", [-0.9, None])
    assert (said["effect"], said["effect_confirmed"]) == ([0.45, None], ["yes", None])
    assert said["in_circuit"] == ["yes", "no"]
    assert said["causes"] == ["uaug make", None]
    assert "drawn" in said


def test_words_of_a_column_are_sorted_as_people_count():
    name = pd.Series(["L10.mixer.2", "L2.mixer.30", "L2.mixer.4"])
    column = index_columns(pd.DataFrame({"name": name}))[0]
    assert column["words"] == ["L2.mixer.4", "L2.mixer.30", "L10.mixer.2"]
    assert column["codes"] == [2, 1, 0]


def test_cards_are_in_the_file_that_the_page_looks_for(monkeypatch: pytest.MonkeyPatch):
    made = pages_of((UAUG, CODON, GC))
    whole = drawn(made).cards
    monkeypatch.setattr("helix_sae.reporting.atlas_folder.CHUNK", 2)
    known = pd.DataFrame({"name": [page.name for page in made]})
    files = atlas_folder(made, known, title="t", subtitle="s")
    assert sorted(files) == ["cards/00000.js", "cards/00001.js", "index.html"]
    assert opened(files).cards == whole


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
    order = [(HOSTILE, UAUG), (HOSTILE, CODON)]
    made = list(feature_pages({HOSTILE: corpus}, tables, order, target=target))
    known = pd.DataFrame({"name": [page.name for page in made], "site": HOSTILE, "best_concept": HOSTILE})
    files = atlas_folder(made, known, title=HOSTILE, subtitle=HOSTILE, target=target)
    atlas = opened(files)
    assert all(HOSTILE.encode() not in content for content in files.values())
    assert atlas.page.title == HOSTILE
    assert atlas.columns["best_concept"]["said"] == [HOSTILE] * 2
    records = [line[-1] for _, _, lines in atlas.blocks(made[0].name, "windows") for line in lines]
    assert records
    assert all(record.startswith(HOSTILE) for record in records)


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


def test_a_card_is_the_same_whatever_the_order_and_with_the_same_seed():
    first, turned = pages_of((UAUG, DEAD), seed=3), pages_of((DEAD, UAUG), seed=3)
    name = f"L0.mixer.{UAUG}"
    assert drawn(first).cards[name] == drawn(turned).cards[name]
    assert first[0].sampled
    others = pages_of((UAUG,), seed=4)[0].sampled
    assert [row.sequence_id for row in others] != [row.sequence_id for row in first[0].sampled]


def test_features_of_two_sites():
    corpora = {site: report_data.corpus(site) for site in SITES}
    order = [(site, UAUG) for site in SITES]
    made = list(feature_pages(corpora, atlas_tables(), order, n_windows=2))
    assert [page.site for page in made] == list(SITES)
    assert len({page.anchor for page in made}) == 2
    assert made[1].effect is None  # the table of effects is about the first site
    assert drawn(made).columns["site"]["said"] == list(SITES)


def test_no_feature_is_alive():
    assert "No feature is ever active" in drawn([]).page.text


def test_without_any_table():
    made = pages_of((UAUG,), AtlasTables(chosen(()), {SITES[0]: report_data.decoder(SITES[0])}))
    said = drawn(made).words(f"L0.mixer.{UAUG}")
    assert "None is significant." in said
    assert "No intervention on this feature" in said


def test_tables_of_another_run_are_refused():
    corpora = {SITES[0]: report_data.corpus(SITES[0])}
    with pytest.raises(ConfigurationError, match=r"whose codes are not there \(layers\.0\.mixer\)"):
        next(feature_pages(corpora, atlas_tables(), [(SITES[0], 1), (SITES[1], 1)]))
    with pytest.raises(ConfigurationError, match=r"asks for feature 99 of 'layers\.0\.mixer', which has 24"):
        next(feature_pages(corpora, atlas_tables(), [(SITES[0], 1), (SITES[0], 99)]))


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
def test_a_card_says_whether_its_feature_comes_back(table: pd.DataFrame | None, said: str):
    given = None if table is None else {SITES[0]: table}
    card = drawn(pages_of((UAUG,), atlas_tables(stability=given))).words(f"L0.mixer.{UAUG}")
    assert said in card
    assert ("cosine 0.91, correlation on held-out tokens 0.87" in card) == (table is not None)
