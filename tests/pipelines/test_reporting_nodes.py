"""Nodes of the reporting: which tables go into which section, what is refused, and what is said at the end of a run."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_data
import report_tables as tables
import scipy.sparse
from html_checks import opened, self_contained
from pydantic import ValidationError

from helix_sae.datasets.labels import label_table
from helix_sae.errors import DataError
from helix_sae.left_out import LeftOut
from helix_sae.pipelines.reporting import nodes
from helix_sae.pipelines.reporting.parameters import ReportingParameters
from helix_sae.reporting.document import Section, Statement, not_run
from helix_sae.sae.codes import TokenCodes
from helix_sae.sae.stability import unknown_stability

SITE = report_data.SITES[0]


def parameters(**changes: Any) -> ReportingParameters:
    return ReportingParameters.model_validate({"n_features": 3, "flank": 8, **changes})


def activations() -> Any:
    """What the atlas asks of the store of activations."""
    table = report_data.table()
    return SimpleNamespace(
        sequence_ids=table["sequence_id"].tolist(),
        n_tokens=len(report_data.token_rows()[1]),
        fingerprint="f" * 64,
        widths={SITE: 16},
    )


def token_codes(names: list[str] | None = None) -> TokenCodes:
    offsets, _, is_nucleotide = report_data.token_rows()
    names = report_data.table()["sequence_id"].tolist() if names is None else names
    return TokenCodes(report_data.codes(SITE), offsets, np.array(names, dtype=object), is_nucleotide)


def handle(source: str = "/models/helix_mini") -> Any:
    return SimpleNamespace(source=source, codon_markers="cds")


def known() -> pd.DataFrame:
    """What the codes say of each feature; no other seed was trained."""
    n = len(report_data.decoder(SITE))
    return pd.DataFrame({"feature": range(n)}).join(
        unknown_stability(np.ones(n, dtype=bool)).drop(columns="feature")
    )


def pooled() -> scipy.sparse.csr_array:
    offsets, _, _ = report_data.token_rows()
    sums = np.add.reduceat(report_data.codes(SITE).toarray(), offsets[:-1])
    return scipy.sparse.csr_array(sums / np.diff(offsets)[:, None])


def features(*numbers: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"name": [f"L0.mixer.{i}" for i in numbers], "site": SITE, "feature": numbers, "density": 0.1}
    )


def drawn(**changes: Any) -> dict[str, bytes]:
    chosen = pd.DataFrame(
        {"site": [SITE], "feature": [report_data.UAUG], "chosen_for": "association", "reason": "no. 1"}
    )
    none = pd.DataFrame()
    given: dict[str, Any] = {
        "chosen": chosen,
        "sparse_codes": {SITE: token_codes(), "layers.9": token_codes()},
        "sequence_codes": {SITE: SimpleNamespace(varm={"decoder": report_data.decoder(SITE)}, var=known(), X=pooled())},
        "activations": activations(),
        "table": report_data.table(),
        "significant": none, "concepts": none, "baselines": none, "effects": none, "circuit": none,
        "causes": none, "rivals": none,
        "features": features(report_data.GC, report_data.UAUG),
        "labels": label_table(),
        "handle": handle(),
        "target": "functional_mrl",
        "parameters": parameters(),
    }  # fmt: skip
    return nodes.draw_atlas(**{**given, **changes})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/06_models/helix_mini", "helix_mini"),
        ("/cache/models--helical-ai--Helix-mRNA/snapshots/0123abcd", "helical-ai/Helix-mRNA"),
        ("C:\\cache\\models--helical-ai--Helix-mRNA\\snapshots\\0123", "helical-ai/Helix-mRNA"),
        ("helix_mini/", "helix_mini"),
    ],
)
def test_a_model_is_named_as_people_name_it(source: str, name: str):
    assert nodes.model_name(source) == name


def test_the_atlas_of_a_run():
    atlas = opened(drawn())
    assert "2 living features of helix_mini on 240 sequences" in atlas.page.text
    assert list(atlas.cards) == [f"L0.mixer.{f}" for f in (report_data.GC, report_data.UAUG)]
    assert atlas.first == [f"L0.mixer.{report_data.UAUG}"]
    assert atlas.columns["chosen_for"]["said"] == [None, "association"]
    assert "Chosen for its association: no. 1." in atlas.words(f"L0.mixer.{report_data.UAUG}")
    assert atlas.page.title == "Feature atlas: library A and library B"


def test_labels_of_features_that_are_not_there_are_told(caplog: pytest.LogCaptureFixture):
    given = [{"feature": f"L0.mixer.{i}", "label": "uAUG"} for i in (report_data.UAUG, 999)]
    with caplog.at_level(logging.WARNING):
        drawn(labels=label_table(given))
    assert "1 label of features that are not alive here, such as L0.mixer.999." in caplog.text


def test_rows_of_the_table_follow_the_codes():
    """The table may be in another order than the codes; the windows are those of the right sequences."""
    shuffled = report_data.table().sample(frac=1, random_state=0)
    assert drawn(table=shuffled) == drawn()


def test_codes_of_another_run_are_refused():
    names = report_data.table()["sequence_id"].tolist()
    with pytest.raises(
        DataError, match=r"sparse codes are of other sequences than the activations.*--load-versions"
    ):
        drawn(sparse_codes={SITE: token_codes(names[::-1])})


def test_a_table_of_another_run_is_refused():
    with pytest.raises(DataError, match=r"1 sequences? .*construct_0000.*mRNA table"):
        drawn(table=report_data.table().iloc[1:])


NO_FEATURES = features()


def test_the_report_and_its_numbers():
    data = nodes.describe_data(report_data.table(), tables.rejected().head(0), handle(), activations())
    prediction = nodes.describe_prediction(
        tables.probe(), tables.pairs(), pd.DataFrame(), tables.agreement(), tables.comparison()
    )
    html, summary, _ = nodes.assemble(parameters(title="A title"), NO_FEATURES, data, prediction)
    page = self_contained(html)
    assert page.title == "A title: library A and library B"
    assert "helix_mini on 240 sequences; predictions of mrl" in page.text
    assert "atlas/index.html beside this page" in page.text
    assert summary["prediction"]["probe"]["validation"] == 0.8
    assert summary["data"]["n_records"] == 240
    assert summary["headlines"]
    alone, _, _ = nodes.assemble(
        parameters(), NO_FEATURES, data, not_run("prediction", "Prediction", "Not run.")
    )
    assert "predictions of" not in self_contained(alone).text


def test_the_report_leads_to_the_cards_of_the_atlas():
    name = f"L0.mixer.{report_data.UAUG}"
    section = Section("data", "Part", [Statement(f"Best is {name}, not {name}1 or x.{name}; see {name}.")])
    html = nodes.assemble(parameters(), features(report_data.UAUG), section)[0]
    place = f"atlas/index.html#{name}"
    links = [a["href"] for a in self_contained(html, beside=[place]).all("a") if "atlas/" in a["href"]]
    assert links == [place, place]
    assert name in opened(drawn()).cards


def test_effects_without_shams_are_not_tested():
    designed = tables.designed()
    given = (tables.effects(), tables.estimates())
    tested = nodes.describe_effects(*given, designed, tables.positions(), "functional_mrl", 0.05)
    assert any("upstream AUG" in s.text for s in tested.statements)
    for without in (designed[~designed["is_sham"]], designed.head(0), pd.DataFrame()):
        section = nodes.describe_effects(*given, without, tables.positions(), "functional_mrl", 0.05)
        assert any("no designed edits with shams" in s.text for s in section.statements)


def test_the_last_words(caplog: pytest.LogCaptureFixture):
    sections = [
        Section("data", "Part", [Statement("Found it.", headline=True)]),
        not_run("b", "Other", "Not run."),
    ]
    with caplog.at_level(logging.INFO):
        text = nodes.assemble(parameters(), NO_FEATURES, *sections)[2]
    assert "  • Found it." in text
    assert "  – Not run." in text
    assert text in caplog.text


GONE = LeftOut("effects of single features", "No start codon is known.")


def test_what_was_left_out_is_said_with_its_reason():
    absent = GONE.table()
    section = nodes.describe_effects(absent, absent, absent, absent, "functional_mrl", 0.05)
    assert [s.text for s in section.statements] == [GONE.reason]
    assert section.numbers == {"run": False, "reason": GONE.reason}
    data = nodes.describe_data(report_data.table(), GONE.table(), handle(), GONE)
    assert "No activations of a model were recorded." in [s.text for s in data.statements]
    html, summary, text = nodes.assemble(
        parameters(), NO_FEATURES, nodes.describe_data(GONE, GONE, GONE, GONE), section
    )
    assert GONE.reason in self_contained(html).text
    assert summary["effects"]["reason"] == GONE.reason
    assert GONE.reason in text


def test_an_atlas_without_codes_says_why():
    for part in ("sparse_codes", "features"):
        files = drawn(**{part: GONE})
        assert list(files) == ["index.html"]
        assert GONE.reason in self_contained(files["index.html"].decode()).text


def test_an_atlas_without_causes_and_associations():
    absent = dict.fromkeys(("significant", "concepts", "baselines", "effects", "circuit"), GONE.table())
    assert drawn(**absent) == drawn(**dict.fromkeys(absent, pd.DataFrame()))
    assert nodes.choose(GONE.table(), GONE.table(), parameters()).empty


@pytest.mark.parametrize(
    "wrong", [{"n_features": 0}, {"flank": 2}, {"title": ""}, {"seed": -1}, {"colour": "red"}]
)
def test_parameters_that_cannot_be(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        parameters(**wrong)


def test_the_atlas_says_what_its_features_are_worth():
    causes = pd.DataFrame(
        [(SITE, report_data.UAUG, "uaug_make", "effect", 0.5, 0.2, 0.8, 0.01, True, "yes")],
        columns=[
            "site",
            "feature",
            "kind",
            "role",
            "effect",
            "low",
            "high",
            "q_value",
            "confirmed",
            "certified",
        ],
    )
    columns = ["dictionary", "ranking", "lead", "lead_low", "lead_high"]
    rivals = pd.DataFrame([("sae", "exact", 0, 0, 0), ("pca", "exact", 0.2, 0.1, 0.3)], columns=columns)
    atlas = opened(drawn(causes=causes, rivals=rivals))
    name = f"L0.mixer.{report_data.UAUG}"
    assert f"carry uaug make ({name}), each by itself" in "".join(atlas.page.texts)
    assert f"#{name}" in [a["href"] for a in atlas.page.all("a")]
    assert "closer to the full effect than principal components" in atlas.page.text
    assert "uaug make +0.500 [0.200, 0.800], q = 0.01" in atlas.words(name)
