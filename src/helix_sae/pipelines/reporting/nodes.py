"""Nodes of the reporting pipeline."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import DataError
from helix_sae.left_out import LeftOut, left_out_of
from helix_sae.pipelines.reporting.parameters import ReportingParameters

if TYPE_CHECKING:
    from anndata import AnnData

    from helix_sae.activations import Activations
    from helix_sae.models.registry import ModelHandle
    from helix_sae.reporting.document import Section
    from helix_sae.sae.codes import SiteCodes
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    AnnData = Activations = ModelHandle = Section = SiteCodes = Any

LOGGER = logging.getLogger(__name__)


def _section(function: Callable[..., Section]) -> Callable[..., Section]:
    """Give None for what was left out; a section without its results says why they are not there."""

    @wraps(function)
    def describe(*arguments: Any, **named: Any) -> Section:
        from helix_sae.reporting.document import Statement, not_run

        absent = [found for found in map(left_out_of, (*arguments, *named.values())) if found is not None]
        section = function(*map(_given, arguments), **{name: _given(value) for name, value in named.items()})
        reasons = list(dict.fromkeys(found.reason for found in absent))
        if reasons and section.numbers.get("run") is False:
            return not_run(section.key, section.title, reasons[0])
        told = [Statement(f"Left out here: {reason}", "absent") for reason in reasons]
        return section._replace(statements=[*section.statements, *told])

    return describe


def _given(value: Any) -> Any:
    return None if left_out_of(value) is not None else value


@_section
def describe_data(
    table: pd.DataFrame | None,
    rejected: pd.DataFrame | None,
    handle: ModelHandle,
    activations: Activations | None,
) -> Section:
    """The data and the model."""
    from helix_sae.reporting.document import not_run
    from helix_sae.reporting.sections import ModelFacts, data_section

    if table is None:
        return not_run("data", "Data and model", "No sequences were read.")
    facts = None
    if activations is not None:
        facts = ModelFacts(
            model_name(handle.source),
            activations.fingerprint,
            handle.codon_markers,
            dict(activations.widths),
            len(activations.sequence_ids),
            activations.n_tokens,
        )
    return data_section(table, rejected, facts)


@_section
def describe_autoencoders(
    metrics: pd.DataFrame,
    history: pd.DataFrame,
    sequence_codes: dict[str, AnnData] | None,
    chosen: str,
    downstream: pd.DataFrame | None = None,
    probing: pd.DataFrame | None = None,
    stability: pd.DataFrame | None = None,
    features: pd.DataFrame | None = None,
    subspaces: pd.DataFrame | None = None,
) -> Section:
    """The autoencoders on held-out tokens."""
    from helix_sae.reporting.sections import autoencoder_section

    codes = sequence_codes or {}
    densities = {site: of_site.var["density"].to_numpy(dtype=float) for site, of_site in codes.items()}
    return autoencoder_section(
        metrics,
        history,
        densities,
        chosen=chosen,
        downstream=downstream,
        probing=probing,
        stability=stability,
        features=features,
        subspaces=subspaces,
    )


@_section
def describe_associations(alpha: float, **tables: pd.DataFrame) -> Section:
    """Associations with properties of the sequences; ``tables`` by the fields of ``AssociationInputs``."""
    from helix_sae.reporting.sections.associations import AssociationInputs, association_section

    return association_section(AssociationInputs(**tables), alpha=alpha)


@_section
def describe_concepts(
    matches: pd.DataFrame, baselines: pd.DataFrame, warnings: pd.DataFrame, profiles: pd.DataFrame
) -> Section:
    """Matches with nucleotide-level concepts."""
    from helix_sae.reporting.sections import concept_section

    return concept_section(matches, baselines, warnings, profiles)


@_section
def describe_prediction(
    probe_metrics: pd.DataFrame,
    pairs: pd.DataFrame,
    exclusions: pd.DataFrame,
    agreement: pd.DataFrame,
    comparison: pd.DataFrame,
) -> Section:
    """The read-out, its pairs, and predicted against known differences."""
    from helix_sae.reporting.sections import prediction_section

    return prediction_section(probe_metrics, pairs, exclusions, agreement, comparison)


@_section
def describe_effects(
    effects: pd.DataFrame,
    agreement: pd.DataFrame,
    designed: pd.DataFrame | None,
    positions: pd.DataFrame,
    target: str,
    q: float,
) -> Section:
    """Effects of single features, designed edits against their shams, estimates against exact effects."""
    from helix_sae.causal.inference import designed_test
    from helix_sae.reporting.sections.effects import EffectInputs, effect_section

    has_shams = designed is not None and len(designed) > 0 and bool(designed["is_sham"].astype(bool).any())
    test = designed_test(designed) if designed is not None and has_shams else None
    return effect_section(EffectInputs(effects, agreement, designed, test, positions), target=target, q=q)


@_section
def describe_comparisons(
    curves: pd.DataFrame, baselines: pd.DataFrame, ceilings: pd.DataFrame, blocks: pd.DataFrame
) -> Section:
    """Cumulative interventions, ceilings, blocks and baselines."""
    from helix_sae.reporting.sections.comparisons import ComparisonInputs, comparison_section

    return comparison_section(ComparisonInputs(curves, baselines, ceilings, blocks))


@_section
def describe_causes(matrix: pd.DataFrame, summary: pd.DataFrame, q: float) -> Section:
    """Which feature carries which cause."""
    from helix_sae.reporting.sections import cause_section

    return cause_section(matrix, summary, q=q)


@_section
def describe_circuit(
    circuit: pd.DataFrame, steps: pd.DataFrame, quality: pd.DataFrame, contributions: pd.DataFrame
) -> Section:
    """The circuit that ACDC left over."""
    from helix_sae.reporting.sections import circuit_section

    return circuit_section(circuit, steps, quality, contributions)


def assemble(
    parameters: ReportingParameters, features: pd.DataFrame, *sections: Section
) -> tuple[str, dict[str, Any], str]:
    """Put the sections together; where they name a living feature is a link to its card in the atlas.

    Returns
    -------
    run_report : str
        HTML.
    run_summary : dict
        The same numbers for machines.
    run_summary_text : str
        What was found, in words.
    """
    from helix_sae.names import anchor_of
    from helix_sae.reporting.document import run_summary
    from helix_sae.reporting.run_report import render_report, render_text
    from helix_sae.reporting.wording import titled

    named = [] if left_out_of(features) is not None else [str(name) for name in features["name"]]
    html = render_report(
        sections,
        title=titled(parameters.title, _numbers_of(sections, "data").get("sources", ())),
        subtitle=_subtitle(sections),
        atlas="atlas/index.html beside this page",
        cards={name: f"atlas/index.html#{anchor_of(name)}" for name in named},
    )
    text = render_text(sections)
    LOGGER.info("%s", text)
    return html, run_summary(sections), text


def choose(
    effects: pd.DataFrame | None, significant: pd.DataFrame | None, parameters: ReportingParameters
) -> pd.DataFrame:
    """The features that the atlas begins with, in their order."""
    from helix_sae.reporting.selection import choose_features

    return choose_features(_given(effects), _given(significant), parameters.n_features)


def gather_features(
    sequence_codes: dict[str, AnnData],
    significant: pd.DataFrame | None,
    concepts: pd.DataFrame | None,
    effects: pd.DataFrame | None,
    circuit: pd.DataFrame | None,
    causes: pd.DataFrame | None,
) -> tuple[pd.DataFrame, dict[str, AnnData]]:
    """What is known of every living feature.

    Returns
    -------
    features : DataFrame
        A row a feature (:func:`helix_sae.reporting.features.feature_table`).
    feature_codes : dict
        One AnnData, ``all_sites``: pooled codes of all sites with that table as ``var``.
    """
    from helix_sae.reporting.features import feature_table, joined_anndata
    from helix_sae.reporting.sections.circuits import surviving_members

    missing = left_out_of(sequence_codes)
    if missing is not None:
        return missing.table(), {}
    circuit = _given(circuit)
    table = feature_table(
        {site: codes.var for site, codes in sequence_codes.items()},
        significant=_given(significant),
        concepts=_given(concepts),
        effects=_given(effects),
        circuit=None if circuit is None else surviving_members(circuit),
        causes=_given(causes),
    )
    return table, {"all_sites": joined_anndata(sequence_codes, table)}


def draw_atlas(
    chosen: pd.DataFrame,
    sparse_codes: Mapping[str, SiteCodes],
    sequence_codes: dict[str, AnnData],
    activations: Activations,
    table: pd.DataFrame,
    significant: pd.DataFrame | None,
    concepts: pd.DataFrame | None,
    baselines: pd.DataFrame | None,
    effects: pd.DataFrame | None,
    circuit: pd.DataFrame | None,
    causes: pd.DataFrame | None,
    rivals: pd.DataFrame | None,
    features: pd.DataFrame,
    labels: pd.DataFrame,
    handle: ModelHandle,
    target: str,
    parameters: ReportingParameters,
) -> dict[str, bytes]:
    """A card for every living feature and their index, as the files of a folder; where there can be none, why."""
    needed = (sparse_codes, sequence_codes, activations, table, features)
    missing = next(filter(None, map(left_out_of, needed)), None)
    if missing is not None:
        return _empty_atlas(missing)
    from helix_sae.names import feature_name
    from helix_sae.reporting.atlas import AtlasTables, feature_pages
    from helix_sae.reporting.atlas_folder import atlas_folder
    from helix_sae.reporting.labels import suggestions
    from helix_sae.reporting.maps import feature_places, sequence_map
    from helix_sae.reporting.sections.circuits import surviving_members
    from helix_sae.reporting.wording import count, titled

    significant, concepts, baselines, effects, circuit, causes, rivals = map(
        _given, (significant, concepts, baselines, effects, circuit, causes, rivals)
    )
    tables = AtlasTables(
        chosen=chosen,
        decoders={site: np.asarray(codes.varm["decoder"]) for site, codes in sequence_codes.items()},
        significant=significant,
        concepts=concepts,
        baselines=baselines,
        effects=effects,
        circuit=None if circuit is None else surviving_members(circuit),
        stability={site: codes.var for site, codes in sequence_codes.items()},
        causes=causes,
        rivals=rivals,
    )
    order = [(str(s), int(f)) for s, f in zip(features["site"], features["feature"], strict=True)]
    made = feature_pages(
        _corpora(
            {site: sparse_codes[site] for site in sparse_codes if site in dict(order)}, activations, table
        ),
        tables,
        order,
        target=target,
        n_windows=parameters.n_windows,
        flank=parameters.flank,
        seed=parameters.seed,
    )
    of = f"{model_name(handle.source)} on {count(len(activations.sequence_ids), 'sequence')}"
    strange = sorted(set(labels["feature"]) - set(features["name"]))
    if strange:
        LOGGER.warning(
            "%s of features that are not alive here, such as %s.", count(len(strange), "label"), strange[0]
        )
    return atlas_folder(
        made,
        features.join(suggestions(features, causes, baselines)),
        labels=labels,
        places=feature_places(tables.decoders, order),
        sequences=sequence_map(
            {site: codes.X for site, codes in sequence_codes.items()},
            table.set_index("sequence_id", drop=False).loc[list(map(str, activations.sequence_ids))],
            order,
            parameters.seed,
        ),
        title=titled("Feature atlas", table["source"].value_counts().index),
        subtitle=f"{count(len(order), 'living feature')} of {of}",
        target=target,
        flank=parameters.flank,
        first=[feature_name(*key) for key in zip(chosen["site"], chosen["feature"], strict=True)],
        words=tables.standing(),
    )


def _empty_atlas(missing: LeftOut) -> dict[str, bytes]:
    from helix_sae.reporting.atlas_folder import INDEX
    from helix_sae.reporting.document import not_run
    from helix_sae.reporting.run_report import render_report

    page = render_report(
        [not_run("atlas", "Feature atlas", missing.reason)],
        title="Feature atlas",
        subtitle="no features to show",
    )
    return {INDEX: page.encode()}


def model_name(source: str) -> str:
    """Name of a model by where its weights are: a hub id also in the hub's cache, else the folder's name."""
    cached = re.search(r"models--([^/\\]+?)--([^/\\]+)", source)
    return f"{cached[1]}/{cached[2]}" if cached else PurePath(source).name


def _numbers_of(sections: tuple[Section, ...], key: str) -> Mapping[str, Any]:
    """What a section tells machines; nothing of one that is not there."""
    return next((section.numbers for section in sections if section.key == key), {})


def _subtitle(sections: tuple[Section, ...]) -> str:
    """Model, number of records and target, as far as the sections know them."""
    data, prediction = _numbers_of(sections, "data"), _numbers_of(sections, "prediction")
    if "n_records" not in data:
        return "no sequences were read"
    model = f"{data['model']['source']} on " if data["model"] else ""
    text = f"{model}{data['n_records']:,} sequences"
    target = prediction.get("probe", {}).get("target")
    return f"{text}; predictions of {str(target).removeprefix('functional_')}" if target else text


def _corpora(codes: Mapping[str, SiteCodes], activations: Activations, table: pd.DataFrame) -> dict[str, Any]:
    """Codes of each site with the nucleotide of each token and the rows of the table."""
    from helix_sae.reporting.windows import CodedCorpus
    from helix_sae.sae.codes import nucleotide_of_tokens

    names = [str(name) for name in activations.sequence_ids]
    if any([str(name) for name in of_site.sequence_id] != names for of_site in codes.values()):
        raise DataError(
            "The sparse codes are of other sequences than the activations: they are of different runs. Run "
            "`sae_training` again, or pin both with --load-versions."
        )
    by_name = table.set_index("sequence_id", drop=False)
    missing = [name for name in names if name not in by_name.index]
    if missing:
        raise DataError(
            f"{len(missing)} sequences of the codes, {missing[0]!r} among them, are not in the mRNA table: "
            "they are of different runs. Run `extraction` again, or pin both with --load-versions."
        )
    rows, made = by_name.loc[names].reset_index(drop=True), dict[str, Any]()
    for site, of_site in codes.items():
        nucleotide = nucleotide_of_tokens(of_site.is_nucleotide, of_site.offsets)
        made[site] = CodedCorpus(rows, of_site.codes, of_site.offsets, nucleotide, of_site.is_nucleotide)
    return made
