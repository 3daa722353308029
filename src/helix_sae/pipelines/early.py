"""What can be known of a run from its parameters and its table, before the model is opened.

Training takes minutes to days; that block 99 does not exist, or that a property is misspelt, is known as soon
as the sequences are read. :class:`EarlyChecks` looks at the parameters of those nodes that a run is going to
execute, as soon as it has the mRNA table, and stops it with one list of all that cannot be. What the *data*
do not allow is no mistake: that part is left out by name later (:mod:`helix_sae.pipelines.parts`), and the
log says so now.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.io.core import DatasetError
from kedro.pipeline import Pipeline
from pydantic import BaseModel

from helix_sae.errors import ConfigurationError, HelixSaeError, ModelError
from helix_sae.mrna.columns import own_name
from helix_sae.pipelines.causal_acdc.parameters import NO_TARGET, CausalParameters
from helix_sae.pipelines.correlation.parameters import CorrelationParameters
from helix_sae.pipelines.extraction.parameters import ExtractionParameters
from helix_sae.pipelines.ingestion.parameters import IngestionParameters
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters

LOGGER = logging.getLogger(__name__)

TABLE = "mrna_table"
_FEW_LABELS = 0.2
_LISTED = 20
_PROBE_FAMILIES = {"discovery": 5, "validation": 2}  # what a read-out needs (helix_sae.causal.read_out)
_PARTS = {"M": "mixer", "*": "self_attn", "+": "feed_forward"}  # of a block, by its letter in config.json

Catalog = CatalogProtocol[Any, Any]


class Findings(NamedTuple):
    """What was found.

    Attributes
    ----------
    problems : list of str
        Settings that cannot be met: the run stops.
    left_out : list of str
        What these sequences do not allow: the other parts go on.
    """

    problems: list[str]
    left_out: list[str]


class EarlyChecks:
    """Kedro hooks that check a run as soon as its table is there."""

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None
        self._catalog: Catalog | None = None

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: Catalog) -> None:
        """Check a run whose table was made before."""
        self._pipeline, self._catalog = pipeline, catalog
        if TABLE in pipeline.inputs() and TABLE in catalog:
            check_run(cast("pd.DataFrame", catalog[TABLE].load()), pipeline, catalog)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Check a run that has just made its table."""
        if dataset_name == TABLE and self._pipeline is not None and self._catalog is not None:
            check_run(data, self._pipeline, self._catalog)


def check_run(table: pd.DataFrame, pipeline: Pipeline, catalog: Catalog) -> None:
    """Compare what the nodes of a run are going to need with its table and the configuration of its model.

    Raises
    ------
    ConfigurationError
        With a line for each setting that cannot be met.
    """
    found = Findings([], [])
    for findings in _findings(table, pipeline, catalog):
        found.problems.extend(findings.problems)
        found.left_out.extend(findings.left_out)
    for text in found.left_out:
        LOGGER.warning("Will be left out: %s", text)
    if found.problems:
        n = len(found.problems)
        lines = "\n".join(f"  {number}. {text}" for number, text in enumerate(found.problems, start=1))
        raise ConfigurationError(
            f"{n} setting{'s' if n > 1 else ''} cannot be met with these sequences and this model; nothing "
            f"was computed yet:\n{lines}"
        )


def _findings(table: pd.DataFrame, pipeline: Pipeline, catalog: Catalog) -> Iterator[Findings]:
    """Findings of each part that the run has."""
    read = {name for node in pipeline.nodes for name in node.inputs}
    made = {name for node in pipeline.nodes for name in node.outputs}

    def of(name: str, kind: type[BaseModel]) -> Any:
        value = catalog[f"params:{name}"].load()
        return value if isinstance(value, kind) else kind.model_validate(value)

    sites: list[str] | None = None
    if "params:extraction" in read and "model" in read:
        known = sites_of(catalog)
        wanted = of("extraction", ExtractionParameters).sites
        yield Findings(site_problems(wanted, known), [])
        sites = wanted or (None if known is None else [site for site in known if site.endswith(".mixer")])
    if "params:sae_training" in read:
        yield Findings(
            _unknown(
                of("sae_training", SaeTrainingParameters).downstream.targets,
                table,
                "sae_training.downstream.targets",
            ),
            [],
        )
    if "params:correlation" in read:
        yield Findings(correlation_problems(table, of("correlation", CorrelationParameters)), [])
    if "params:causal_acdc" in read and TABLE in read:
        causal = of("causal_acdc", CausalParameters)
        if "sae_checkpoints" in made:
            yield Findings(block_problems(causal.target_blocks, sites), [])
        yield target_findings(table, causal)
        yield pair_findings(table, causal)
        if "probe_records" in read and "params:ingestion" in read:
            yield Findings(
                further_problems(
                    catalog["probe_records"].load, table, of("ingestion", IngestionParameters), causal
                ),
                [],
            )


def sites_of(catalog: Catalog) -> list[str] | None:
    """Sites of the model by its config.json, without its weights; None for a kind whose configuration is not known here."""
    from helix_sae.models.checkpoints import configuration

    handle = catalog["model"].load()
    if handle.kind != "helix_mrna":
        return None
    try:
        config = configuration(Path(handle.source))
    except ModelError:
        return None  # opening the model says what is wrong with it
    letters = config.get("layers_block_type_string")
    if not isinstance(letters, str) or not set(letters) <= set(_PARTS):
        return None
    blocks = [[f"layers.{k}", f"layers.{k}.{_PARTS[letter]}"] for k, letter in enumerate(letters)]
    return ["embeddings", *(site for pair in blocks for site in pair)]


def site_problems(wanted: Sequence[str] | None, known: Sequence[str] | None) -> list[str]:
    """Sites that the model does not have."""
    unknown = sorted(set(wanted or ()) - set(known or wanted or ()))
    if not unknown:
        return []
    return [f"extraction.sites: the model has no {', '.join(unknown)}; it has {_listed(known or ())}."]


def block_problems(wanted: Sequence[int] | None, sites: Sequence[str] | None) -> list[str]:
    """Blocks at which no autoencoder is going to be trained."""
    if wanted is None or sites is None:
        return []
    there = sorted({int(site.split(".")[1]) for site in sites if site.startswith("layers.")})
    missing = sorted(set(wanted) - set(there))
    if not missing:
        return []
    return [
        f"causal_acdc.target_blocks: block {', '.join(map(str, missing))} will have no autoencoder; those "
        f"trained are at {', '.join(map(str, there))}. Name some of these, or add the block's site to "
        "extraction.sites."
    ]


def correlation_problems(table: pd.DataFrame, parameters: CorrelationParameters) -> list[str]:
    """Columns to test or to hold fixed that the table does not have."""
    return [
        *_unknown(parameters.properties, table, "correlation.properties"),
        *_unknown(parameters.confounders, table, "correlation.confounders"),
    ]


def target_findings(table: pd.DataFrame, parameters: CausalParameters) -> Findings:
    """What is wrong with the property to explain, and what its labels do not allow."""
    name, asked = parameters.target, own_name(parameters.target)
    what = f"the prediction of {asked} and its causes"
    is_default = name in (NO_TARGET, "functional_mrl")
    if name not in table.columns:
        known = _measured(table)
        if is_default:
            give = f"set causal_acdc.target to one of {known}" if known else "no property was measured"
            return Findings([], [f"{what}: no sequence has it ({give})."])
        return Findings(_unknown([name], table, "causal_acdc.target"), [])
    column = table[name].dropna()
    problems = list(_class_problems(column, parameters))
    if column.nunique() < 2:
        value = f" ({column.iloc[0]} everywhere)" if len(column) else ""
        return Findings(problems, [f"{what}: it does not vary{value}."])
    labelled = table.loc[column.index]
    few = [
        f"{labelled.loc[labelled['split'] == part, 'cluster'].nunique()} {part} families are labelled, and "
        f"{least} are needed"
        for part, least in _PROBE_FAMILIES.items()
        if labelled.loc[labelled["split"] == part, "cluster"].nunique() < least
    ]
    if few:
        return Findings(problems, [f"{what}: {'; '.join(few)}."])
    if len(column) < _FEW_LABELS * len(table):
        LOGGER.warning(
            "%s is known of %d of %d sequences (%.0f %%): the others take no part in its prediction",
            asked, len(column), len(table), 100 * len(column) / len(table),
        )  # fmt: skip
    return Findings(problems, [])


def _class_problems(column: pd.Series, parameters: CausalParameters) -> Iterator[str]:
    """A category needs the class that is explained, a number none."""
    positive = parameters.probe.positive_class
    classes = sorted(map(str, column.unique()))
    is_number = pd.api.types.is_numeric_dtype(column)
    if positive is not None and positive not in classes:
        yield (
            f"causal_acdc.probe.positive_class: {positive!r} is no class of {own_name(parameters.target)};"
            f" there are {_listed(classes)}."
        )
    if positive is None and not is_number and len(classes) > 1:
        yield (
            f"causal_acdc.target: {own_name(parameters.target)} is a category ({_listed(classes)}). Say "
            f"which class is explained: causal_acdc.probe.positive_class={classes[-1]}, with "
            "causal_acdc.probe.kind=logistic."
        )
    if (
        parameters.probe.kind == "logistic"
        and positive is None
        and is_number
        and not set(column.unique()) <= {0, 1}
    ):
        yield (
            f"causal_acdc.probe.kind: logistic is for two classes, and {own_name(parameters.target)} is a "
            "number; use ridge."
        )


def pair_findings(table: pd.DataFrame, parameters: CausalParameters) -> Findings:
    """What is wrong with the settings of pairs, and what the sequences do not allow."""
    from helix_sae.causal.edits import OWN_KINDS, STANDARD_KINDS
    from helix_sae.mrna.counterfactuals import DECOY_KINDS

    wanted = parameters.pairs
    found = Findings([], [])
    if wanted.max_length is not None and not (table["sequence"].str.len() <= wanted.max_length).any():
        shortest = int(table["sequence"].str.len().min())
        found.left_out.append(
            f"the prediction and its causes: no sequence is as short as {wanted.max_length} nt; the "
            f"shortest has {shortest}"
            " (causal_acdc.pairs.max_length bounds them; null takes all)."
        )
    if wanted.min_reads is not None and "reads" not in table and wanted.source in ("natural", "named"):
        found.problems.append(
            "causal_acdc.pairs.min_reads: the table has no column `reads`; map it in ingestion.columns, or "
            "leave min_reads out."
        )
    if wanted.source == "named" and wanted.parent not in table:
        found.problems.append(
            f"causal_acdc.pairs.parent: the table has no column {wanted.parent!r} that names the other side "
            "of a pair; map it in ingestion.columns, or set causal_acdc.pairs.source to natural or edited."
        )
    kinds = {*STANDARD_KINDS, *OWN_KINDS, *DECOY_KINDS, *(f"motif_{name}" for name in wanted.motifs)}
    unknown = sorted(set(wanted.kinds or ()) - kinds)
    if wanted.source == "edited" and unknown:
        found.problems.append(
            f"causal_acdc.pairs.kinds: there is no kind of edit {', '.join(unknown)}; there are "
            f"{_listed(sorted(kinds))}."
        )
    if wanted.source == "edited" and table["cds_start"].isna().all() and not wanted.motifs:
        found.left_out.append(
            "edited pairs: no start codon is known, and the edits are of upstream AUGs, of the start's "
            "context and of codons. Give cds_start, a GFF3 file, or ingestion.reporter for bare 5'UTRs; or "
            "motifs to knock out in causal_acdc.pairs.motifs."
        )
    return found


def further_problems(
    load: Callable[[], Any], table: pd.DataFrame, ingestion: IngestionParameters, parameters: CausalParameters
) -> list[str]:
    """What keeps the further records of ``probe_sequences`` from being read."""
    from helix_sae.pipelines.causal_acdc.read_out import tabulate_further

    if parameters.target not in table.columns:
        return []  # said already, and they would not be used
    try:
        tabulate_further(load(), table, ingestion, parameters)
    except (HelixSaeError, DatasetError) as error:
        cause = error if isinstance(error, HelixSaeError) else error.__cause__ or error
        return [f"probe_sequences: {cause}"]
    return []


def _unknown(wanted: Iterable[str] | None, table: pd.DataFrame, where: str) -> list[str]:
    """Columns that the table does not have, with the nearest that it has."""
    problems: list[str] = []
    for name in wanted or ():
        if name in table.columns:
            continue
        own = {own_name(str(column)): str(column) for column in table.columns}
        close = difflib.get_close_matches(own_name(name), list(own), n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        problems.append(
            f"{where}: no column {own_name(name)!r} was read.{meant} Measured properties are "
            f"{_measured(table) or 'none'}; a column of another name is mapped in ingestion.columns."
        )
    return problems


def _measured(table: pd.DataFrame) -> str:
    return _listed([own_name(str(c)) for c in table.columns if str(c).startswith("functional_")])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
