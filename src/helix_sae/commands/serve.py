"""``helix-sae serve``: a run's model, autoencoders and tables, opened and put behind an address."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.commands.project import find_project
from helix_sae.commands.sharing import load_folder
from helix_sae.datasets.structures import load_structure
from helix_sae.errors import ConfigurationError, StoreError
from helix_sae.explorer import CalibratedReadOut, Record, Session, calibrated, heads_of, reference_of
from helix_sae.explorer.records import record_of
from helix_sae.left_out import left_out_of
from helix_sae.models.registry import handle_for, open_model
from helix_sae.mrna.readers import read_sequences
from helix_sae.mrna.records import build_table
from helix_sae.run_history import Artefact, Run, find_runs, run_named

if TYPE_CHECKING:
    from helix_sae.explorer.limits import Limits
    from helix_sae.models.contract import Model
    from helix_sae.sae import SparseAutoencoder

_SAMPLE = 200
"""Sequences that tell what is usual for the features."""

_SAES, _REPORT, _NEWEST = "sae_checkpoints", "run_report", "latest"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Served(NamedTuple):
    """A session, and the folder with the pages of the same run."""

    session: Session
    pages: Path | None


def open_served(name: str = _NEWEST, root: str = "data") -> Served:
    """Open a run; what comes with the package where the newest is meant and nothing has been trained.

    Parameters
    ----------
    name : str
        Of a run, the beginning of it, or ``latest``.
    root : str
        Data root of the runs.

    Raises
    ------
    StoreError
        If there is no such run, or it has trained no autoencoder.
    ModelError
        If its model is no longer there.
    """
    is_there = Path(root).is_dir() or "://" in root
    runs = find_runs(root) if is_there or name != _NEWEST else []
    trained = [run for run in runs if any(artefact.name == _SAES for artefact in run.artefacts)]
    if name == _NEWEST and not trained:
        return open_shipped()
    run = trained[-1] if name == _NEWEST else run_named(runs, name)
    return open_run(run, runs, root)


def open_run(run: Run, runs: Sequence[Run], root: str) -> Served:
    """Open what a run made, and what it was made from.

    Raises
    ------
    StoreError
        If no autoencoder belongs to it.
    """
    parts = _parts(run, runs)
    if _SAES not in parts:
        raise StoreError(
            f"Run {run.name} has no autoencoders; name one that trained some (helix-sae runs ls), or run"
            " kedro run --pipeline=sae_training."
        )
    told = parts[_SAES].provenance["lineage"]["model"]
    markers = told.get("codon_markers")
    handle = handle_for(told["url"], codon_markers=markers, dtype=told.get("dtype", "float32"))
    model = open_model(handle)
    saes = _autoencoders(_within(parts[_SAES]), model)
    read_outs, by_head = _read_outs(parts, model)
    model = model.as_read_by_head() if by_head else model
    table = pd.read_parquet(_within(parts["mrna_table"]))
    reference = reference_of(
        model, saes, _sample(table), handle.codon_markers, table["sequence"].str.len().to_numpy()
    )
    about = _table(parts, "features")
    session = Session(
        model,
        saes,
        read_outs,
        reference,
        handle.codon_markers,
        pd.DataFrame() if about is None else about,
        f"run {run.name}",
        table,
    )
    return Served(session, _pages(parts, runs, root))


def open_shipped(project: Path | None = None) -> Served:
    """The small model, its autoencoders and its heads, as they come with the package."""
    data = (project or find_project()) / "data"
    handle = handle_for(data / "06_models" / "helix_mini")
    model = open_model(handle)
    saes = _autoencoders(data / "06_models" / "helix_mini_saes", model)
    table, _ = build_table(read_sequences(str(data / "01_raw" / "demo")), cluster_by="none")
    lengths = table["sequence"].str.len().to_numpy()
    reference = reference_of(model, saes, _sample(table), handle.codon_markers, lengths)
    session = Session(
        model,
        saes,
        heads_of(model),
        reference,
        handle.codon_markers,
        title="helix_mini, as shipped",
        table=table,
    )
    return Served(session, None)


def serve_at(
    served: Served,
    host: str,
    port: int,
    say: Callable[[str], object],
    limits: Limits | None = None,
) -> None:
    """Listen until interrupted.

    Parameters
    ----------
    served : Served
    host, port
        Port 0 is any free one.
    say : callable
        Takes the lines that tell where.
    limits : Limits, optional

    Raises
    ------
    ConfigurationError
        If the address cannot be listened at, or the extra ``serve`` is not installed.
    """
    try:
        import uvicorn  # noqa: PLC0415 - only who serves needs it

        from helix_sae.explorer.api import create_app  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"Serving needs FastAPI and uvicorn ({error}): pip install 'helix_sae[serve]'."
        ) from error
    opened = _listen(host, port)
    own = is_loopback(host)
    token = None if own else secrets.token_urlsafe(24)
    app = create_app(
        served.session,
        limits=limits,
        token=token,
        hosts=_LOOPBACK if own else (),
        run_pages=served.pages,
    )
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{opened.getsockname()[1]}/"
    say(f"Serving {served.session.title}. Open {address}{'' if token is None else f'?token={token}'}")
    say("Stop with Ctrl+C.")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=3,
    )
    uvicorn.Server(config).run(sockets=[opened])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, number)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)  # who follows the printed address at once waits until it is answered
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened at ({error.strerror or error}); name another --port or --host."
        ) from error
    return opened


def _parts(run: Run, runs: Sequence[Run]) -> dict[str, Artefact]:
    """What a run made and descends from, by name; what it made itself goes first."""
    every = {(a.name, a.version): a for other in runs for a in other.artefacts}
    found = {artefact.name: artefact for artefact in run.artefacts}
    for need in sorted({need for artefact in run.artefacts for need in artefact.needs}):
        if need in every:
            found.setdefault(need[0], every[need])
    return found


def _read_outs(parts: Mapping[str, Artefact], model: Model) -> tuple[dict[str, CalibratedReadOut], bool]:
    """The run's read-out, or the model's heads where it has none; and whether it is a head that reads."""
    probe = load_structure(_within(parts["probe"])) if "probe" in parts else None
    if probe is None or left_out_of(probe) is not None:
        return heads_of(model), True
    return {probe.target: calibrated(probe, _table(parts, "probe_predictions"))}, probe.kind == "head"


def _autoencoders(folder: Path, model: Model) -> dict[str, SparseAutoencoder]:
    return {site: sae.to(model.device) for site, sae in load_folder(folder).items()}


def _within(artefact: Artefact) -> Path:
    """The file or folder of a version."""
    folder = Path(artefact.folder)
    return folder / folder.parent.name


def _table(parts: Mapping[str, Artefact], name: str) -> pd.DataFrame | None:
    table = pd.read_csv(_within(parts[name])) if name in parts else None
    return None if left_out_of(table) is not None else table


def _sample(table: pd.DataFrame) -> list[Record]:
    """Some sequences of a table, the same each time."""
    drawn = np.random.default_rng(0).permutation(len(table))[:_SAMPLE]
    return [record_of(row) for row in table.iloc[np.sort(drawn)].to_dict("records")]


def _pages(parts: Mapping[str, Artefact], runs: Sequence[Run], root: str) -> Path | None:
    """The plain copies of the newest report, where they are of these autoencoders.

    They are this run's, or those of a later one that only drew report and atlas again, as for labels.
    """
    latest = Path(root) / "latest"
    copy = latest / "report.html"
    if not copy.is_file():
        return None
    shown = copy.read_bytes()
    for run in reversed(runs):
        report = next((artefact for artefact in run.artefacts if artefact.name == _REPORT), None)
        if report is not None and _within(report).read_bytes() == shown:
            of_report = _parts(run, runs).get(_SAES)
            return latest if of_report is not None and of_report.version == parts[_SAES].version else None
    return None
