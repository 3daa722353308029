"""Nodes of the reporting pipeline."""

from __future__ import annotations

import logging
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import DataError
from helix_sae.pipelines.reporting.parameters import ReportingParameters

if TYPE_CHECKING:
    from anndata import AnnData

    from helix_sae.activations.store import ActivationStore
    from helix_sae.models.helix.loading import HelixHandle
    from helix_sae.reporting.document import Section
    from helix_sae.sae import TokenCodes
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    AnnData = ActivationStore = HelixHandle = Section = TokenCodes = Any

LOGGER = logging.getLogger(__name__)


def describe_data(
    table: pd.DataFrame, rejected: pd.DataFrame, handle: HelixHandle, activations: ActivationStore
) -> Section:
    """The data and the model."""
    from helix_sae.reporting.sections import ModelFacts, data_section

    facts = ModelFacts(
        model_name(handle.source),
        activations.fingerprint,
        handle.codon_markers,
        dict(activations.widths),
        len(activations.sequence_ids),
        activations.n_tokens,
    )
    return data_section(table, rejected, facts)


def describe_autoencoders(
    metrics: pd.DataFrame,
    history: pd.DataFrame,
    sequence_codes: dict[str, AnnData],
    chosen: str,
    downstream: pd.DataFrame | None = None,
    probing: pd.DataFrame | None = None,
    stability: pd.DataFrame | None = None,
) -> Section:
    """The autoencoders on held-out tokens."""
    from helix_sae.reporting.sections import autoencoder_section

    densities = {site: codes.var["density"].to_numpy(dtype=float) for site, codes in sequence_codes.items()}
    return autoencoder_section(
        metrics,
        history,
        densities,
        chosen=chosen,
        downstream=downstream,
        probing=probing,
        stability=stability,
    )


def describe_associations(alpha: float, **tables: pd.DataFrame) -> Section:
    """Associations with properties of the sequences; ``tables`` by the fields of ``AssociationInputs``."""
    from helix_sae.reporting.sections.associations import AssociationInputs, association_section

    return association_section(AssociationInputs(**tables), alpha=alpha)


def describe_concepts(
    matches: pd.DataFrame, baselines: pd.DataFrame, warnings: pd.DataFrame, profiles: pd.DataFrame
) -> Section:
    """Matches with nucleotide-level concepts."""
    from helix_sae.reporting.sections import concept_section

    return concept_section(matches, baselines, warnings, profiles)


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


def describe_effects(
    effects: pd.DataFrame,
    agreement: pd.DataFrame,
    designed: pd.DataFrame,
    positions: pd.DataFrame,
    target: str,
    q: float,
) -> Section:
    """Effects of single features, designed edits against their shams, estimates against exact effects."""
    from helix_sae.causal.inference import designed_test
    from helix_sae.reporting.sections.effects import EffectInputs, effect_section

    has_shams = bool(designed["is_sham"].astype(bool).any()) if len(designed) else False
    test = designed_test(designed) if has_shams else None
    return effect_section(EffectInputs(effects, agreement, designed, test, positions), target=target, q=q)


def describe_comparisons(
    curves: pd.DataFrame, baselines: pd.DataFrame, ceilings: pd.DataFrame, blocks: pd.DataFrame
) -> Section:
    """Cumulative interventions, ceilings, blocks and baselines."""
    from helix_sae.reporting.sections.comparisons import ComparisonInputs, comparison_section

    return comparison_section(ComparisonInputs(curves, baselines, ceilings, blocks))


def describe_circuit(
    circuit: pd.DataFrame, steps: pd.DataFrame, quality: pd.DataFrame, contributions: pd.DataFrame
) -> Section:
    """The circuit that ACDC left over."""
    from helix_sae.reporting.sections import circuit_section

    return circuit_section(circuit, steps, quality, contributions)


def assemble(parameters: ReportingParameters, *sections: Section) -> tuple[str, dict[str, Any]]:
    """Put the sections together.

    Returns
    -------
    run_report : str
        HTML.
    run_summary : dict
        The same numbers for machines.
    """
    from helix_sae.reporting.document import run_summary
    from helix_sae.reporting.run_report import render_report

    html = render_report(
        sections,
        title=parameters.title,
        subtitle=_subtitle(sections),
        atlas=f"{parameters.folder}/feature_atlas.html",
    )
    return html, run_summary(sections)


def choose(effects: pd.DataFrame, significant: pd.DataFrame, parameters: ReportingParameters) -> pd.DataFrame:
    """The features that get a page, in the order of the pages."""
    from helix_sae.reporting.selection import choose_features

    return choose_features(effects, significant, parameters.n_features)


def draw_atlas(
    chosen: pd.DataFrame,
    sparse_codes: dict[str, TokenCodes],
    sequence_codes: dict[str, AnnData],
    activations: ActivationStore,
    table: pd.DataFrame,
    significant: pd.DataFrame,
    concepts: pd.DataFrame,
    baselines: pd.DataFrame,
    effects: pd.DataFrame,
    circuit: pd.DataFrame,
    handle: HelixHandle,
    target: str,
    parameters: ReportingParameters,
) -> str:
    """A page for every chosen feature, as one HTML document."""
    from helix_sae.reporting.atlas import AtlasTables, feature_pages, render_atlas
    from helix_sae.reporting.sections.circuits import surviving_members
    from helix_sae.reporting.wording import count

    tables = AtlasTables(
        chosen=chosen,
        decoders={site: np.asarray(codes.varm["decoder"]) for site, codes in sequence_codes.items()},
        significant=significant,
        concepts=concepts,
        baselines=baselines,
        effects=effects,
        circuit=surviving_members(circuit),
    )
    rows = activations.all_rows()
    corpora = {
        site: _corpus(codes, activations, rows.nucleotide, table)
        for site, codes in sparse_codes.items()
        if site in set(chosen["site"])
    }
    made = feature_pages(
        corpora,
        tables,
        target=target,
        n_windows=parameters.n_windows,
        flank=parameters.flank,
        seed=parameters.seed,
    )
    of = f"{model_name(handle.source)} on {count(len(activations.sequence_ids), 'sequence')}"
    subtitle = f"{count(len(made), 'feature')} of {of}"
    return render_atlas(made, title="Feature atlas", subtitle=subtitle, target=target, flank=parameters.flank)


def announce(parameters: ReportingParameters, report: str, atlas: str, *sections: Section) -> str:
    """Say in the log what was found and where it lies; takes the finished pages so as to be the last to speak."""
    from helix_sae.reporting.run_report import render_text

    text = render_text(
        sections,
        {
            "Report": f"{parameters.folder}/run_report.html ({len(report) / 1e6:.1f} MB)",
            "Feature atlas": f"{parameters.folder}/feature_atlas.html ({len(atlas) / 1e6:.1f} MB)",
            "Numbers": f"{parameters.folder}/run_summary.json",
            "Tables": f"{parameters.folder}/*.csv",
            "Figures": f"{parameters.folder}/figures",
        },
    )
    LOGGER.info("%sEach of these is a folder with a version a run; the newest sorts last.", text)
    return text


def model_name(source: str) -> str:
    """Name of a model by where its weights are: a hub id also in the hub's cache, else the folder's name."""
    cached = re.search(r"models--([^/\\]+?)--([^/\\]+)", source)
    return f"{cached[1]}/{cached[2]}" if cached else PurePath(source).name


def _subtitle(sections: tuple[Section, ...]) -> str:
    """Model, number of records and target, as far as the sections know them."""
    numbers: dict[str, Any] = {section.key: section.numbers for section in sections}
    data, prediction = numbers["data"], numbers.get("prediction", {})
    text = f"{data['model']['source']} on {data['n_records']:,} sequences"
    target = prediction.get("probe", {}).get("target")
    return f"{text}; predictions of {str(target).removeprefix('functional_')}" if target else text


def _corpus(
    codes: TokenCodes, activations: ActivationStore, nucleotide: np.ndarray, table: pd.DataFrame
) -> Any:
    """Codes with the nucleotide of each token, which the store of activations knows."""
    from helix_sae.reporting.windows import CodedCorpus

    if list(codes.sequence_id) != list(activations.sequence_ids):
        raise DataError(
            "The sparse codes are of other sequences than the activations: they are of different runs. Run "
            "`sae_training` again, or pin both with --load-versions."
        )
    by_name = table.set_index("sequence_id", drop=False)
    missing = [name for name in codes.sequence_id if name not in by_name.index]
    if missing:
        raise DataError(
            f"{len(missing)} sequences of the codes, {missing[0]!r} among them, are not in the mRNA table: they are of "
            "different runs. Run `extraction` again, or pin both with --load-versions."
        )
    rows = by_name.loc[list(codes.sequence_id)].reset_index(drop=True)
    return CodedCorpus(rows, codes.codes, codes.offsets, nucleotide, codes.is_nucleotide)
