"""``helix-sae run``: from a file of sequences to a report."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from helix_sae.commands.findings import show_findings
from helix_sae.commands.project import configured_places, find_project, run_pipelines
from helix_sae.errors import ConfigurationError, DataError
from helix_sae.pipelines.causal_acdc.parameters import NO_TARGET

STAGES = {
    "ingestion": "Reading sequences",
    "extraction": "Recording the model",
    "sae_training": "Training autoencoders",
    "correlation": "Relating features to biology",
    "causal_acdc": "Testing causes by intervention",
    "reporting": "Writing the report",
}
ONLY = {
    "sae": ("ingestion", "extraction", "sae_training", "reporting"),
    "correlation": ("ingestion", "extraction", "sae_training", "correlation", "reporting"),
    "causal": ("ingestion", "extraction", "sae_training", "causal_acdc", "reporting"),
}


_LEAST_AUC = 0.65
"""As far above a guess as the floor of conf/base for numbers, an R² of 0.3, is above the mean."""

_SHORT = 200
"""Nucleotides up to which interventions are quick: conf/base keeps to sequences that are no longer."""


class Wishes(NamedTuple):
    """What the command line says of a file; see the options of ``helix-sae run``."""

    sequence: str | None = None
    target: str | None = None
    labels: tuple[str, ...] = ()
    coding: str | None = None
    gff3: str | None = None
    settings: tuple[str, ...] = ()


class Plan(NamedTuple):
    """A run that was worked out from a file.

    Attributes
    ----------
    parameters : dict
        As ``kedro run --params`` takes them.
    notes : list of str
        What was guessed, and what will be left out and why.
    """

    parameters: dict[str, Any]
    notes: list[str]


def run_file(
    file: str | None,
    wishes: Wishes,
    *,
    out: str | None = None,
    env: str | None = None,
    only: str | None = None,
) -> Path:
    """Run the pipelines on a file or a folder of sequences, and show what comes of it on the terminal.

    Without a file, what the project's configuration names is run, into its data root: the demo, as it comes.

    Returns
    -------
    Path
        The folder with the report.

    Raises
    ------
    HelixSaeError
        If the input, the options or the data are not what they have to be.
    """
    from rich.console import Console  # noqa: PLC0415 - slow to import, and `--help` should be quick

    from helix_sae.console import Stages, show_stages  # noqa: PLC0415

    began = time.monotonic()
    # Not as rich has it: Jupyter asks for colours, and pipes would be taken for terminals.
    console = Console(soft_wrap=True, force_terminal=sys.stdout.isatty())
    project = find_project()
    if file is None:
        plan = plan_configured(wishes)
        source, root = configured_places(project, env)
    else:
        source = existing(file)
        root = Path(f"helix-sae-{Path(source).name.split('.')[0] or 'run'}").absolute()
        plan = plan_run(source, wishes)
    root = Path(out).absolute() if out else root
    console.print(f"{file or source} -> {root}", highlight=False)
    for note in plan.notes:
        console.print(f"  {note}", highlight=False, markup=False)
    pipelines = ONLY[only] if only else tuple(STAGES)
    log = root / "logs" / f"{datetime.now():%Y-%m-%dT%H.%M.%S}.log"
    titles = STAGES | ({"sae_training": "Applying autoencoders"} if _applies(plan) else {})
    stages = Stages(console, {name: titles[name] for name in pipelines})
    with show_stages(stages):
        run_pipelines(project, env, {**plan.parameters, "data_root": str(root)}, pipelines, log)
    show_findings(console, root, log, time.monotonic() - began)
    return root / "latest"


def _applies(plan: Plan) -> bool:
    """Whether the autoencoders that come with the model are asked for, so that none is trained."""
    return plan.parameters.get("sae_training", {}).get("dictionaries") == "shipped"


def plan_run(source: str, wishes: Wishes) -> Plan:
    """Work out the parameters of a run from the file and the options.

    Raises
    ------
    DataError
        If the file cannot be read, or a column is named that it lacks.
    ConfigurationError
        If ``--set`` is not ``KEY=VALUE``.
    """
    from helix_sae.datasets.raw import SequenceFilesDataset  # noqa: PLC0415 - brings pandas
    from helix_sae.mrna.columns import CORE_COLUMNS  # noqa: PLC0415
    from helix_sae.mrna.guesses import commonest_class, number_columns, sequence_column  # noqa: PLC0415

    raw = SequenceFilesDataset(filepath=source, gff3=_absolute(wishes.gff3)).load()
    records = [record.values for record in raw.records]
    names = list(dict.fromkeys(name for record in records for name in record))
    shown = Path(source).name
    for name in (wishes.sequence, wishes.target, *wishes.labels):
        if name is not None and name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise DataError(f"{shown} has no column {name!r}.{meant} It has {', '.join(names) or 'none'}.")
    notes: list[str] = []
    sequence = wishes.sequence
    if records and sequence is None and "sequence" not in names:
        sequence = sequence_column(records, shown, taken=CORE_COLUMNS)
        notes.append(f"sequences: column {sequence!r} (the only one of nucleotides)")
    target = wishes.target or _only_number(number_columns(records, taken=CORE_COLUMNS), notes)
    given: dict[str, Any] = {"sequences": source}
    if wishes.gff3 is not None:
        given["gff3"] = _absolute(wishes.gff3)
    columns = {} if sequence is None else {"sequence": sequence}
    columns |= {label: label for label in (target, *wishes.labels) if label is not None}
    _put(given, "ingestion.columns", columns)
    if wishes.coding is not None:
        _put(given, "ingestion.reporter", {"five_prime": "", "coding": wishes.coding})
    _put(given, "causal_acdc.target", target or NO_TARGET)
    explained = None if target is None else commonest_class(records, target)
    if explained is not None:
        _put(
            given, "causal_acdc.probe", {"kind": "logistic", "positive_class": explained, "floor": _LEAST_AUC}
        )
        notes.append(
            f"{target} holds classes: {explained!r}, the commonest, is explained against the rest"
            " (--set causal_acdc.probe.positive_class=CLASS names another)"
        )
    lengths = [len(str(record.get(sequence or "sequence", ""))) for record in records]
    if lengths and min(lengths) > _SHORT:
        _put(given, "causal_acdc.pairs", {"max_length": None})
        if target is not None:
            notes.append(
                f"the shortest sequence has {min(lengths):,} nt: interventions on whole transcripts take"
                " longer (--set causal_acdc.pairs.max_length=NT keeps to shorter ones)"
            )
    starts_known = wishes.coding is not None or wishes.gff3 is not None or "cds_start" in names
    _put(given, "causal_acdc.pairs", {"source": "edited" if starts_known else "natural"})
    if not starts_known:
        notes.append(
            "no start codon is known: reading frames and designed edits are left out (--gff3 FILE for whole"
            " transcripts; --coding AUGGGC... names what follows every 5'UTR)"
        )
    _settings(given, wishes)
    return Plan(given, notes)


def plan_configured(wishes: Wishes) -> Plan:
    """The parameters of a run of what the configuration names.

    Raises
    ------
    ConfigurationError
        If something is said of a file and none is named.
    """
    if wishes != Wishes(settings=wishes.settings):
        raise ConfigurationError(
            "Columns, --coding and --gff3 are of a FILE: name it, as in helix-sae run my_utrs.csv. Without"
            " one, the sequences of the configuration are run, with --set for any parameter."
        )
    given: dict[str, Any] = {}
    _settings(given, wishes)
    return Plan(given, [])


def _settings(given: dict[str, Any], wishes: Wishes) -> None:
    for setting in wishes.settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(
                f"--set takes KEY=VALUE, e.g. --set sae_training.seed=1; not {setting!r}."
            )
        _put(given, key.strip(), yaml.safe_load(value))


def _only_number(numbers: Sequence[str], notes: list[str]) -> str | None:
    if len(numbers) == 1:
        notes.append(f"target: column {numbers[0]!r} (the only one that holds numbers)")
        return numbers[0]
    if numbers:
        notes.append(
            f"no target is named and several columns hold numbers ({', '.join(numbers)}): the causal part is"
            " left out (--target names one)"
        )
    else:
        notes.append("no column holds a measured number: the causal part is left out")
    return None


def existing(file: str) -> str:
    """An absolute path, or a URL as it is.

    Raises
    ------
    DataError
        If there is nothing at the path, with the name in the same folder that is nearest.
    """
    if "://" in file:
        return file
    path = Path(file).expanduser().absolute()
    if path.exists():
        return str(path)
    beside: Iterable[str] = (p.name for p in path.parent.iterdir()) if path.parent.is_dir() else ()
    close = difflib.get_close_matches(path.name, list(beside), n=1)
    meant = f" Did you mean {path.parent / close[0]}?" if close else ""
    raise DataError(f"{file}: there is no such file or folder.{meant}")


def _absolute(path: str | None) -> str | None:
    # A bare name lies beside the FASTA file, as the reader has it.
    return path if path is None or "://" in path or not Path(path).exists() else str(Path(path).absolute())


def _put(given: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c`` in nested mappings; a mapping joins one that is there."""
    *path, last = key.split(".")
    for name in path:
        given = given.setdefault(name, {})
    if isinstance(value, Mapping) and isinstance(given.get(last), dict):
        given[last].update(value)
    else:
        given[last] = value
