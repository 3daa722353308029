"""``helix-sae runs``: what ran here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

_SHOWN_DIFFERENCES = 40


@click.group()
def runs() -> None:
    """What ran here: what each run read, how good it was, where it lies, how large it is."""


_data = click.option(
    "--data", "root", default="data", show_default=True, metavar="DIR", help="Data root of the runs."
)


@runs.command()
@_data
def ls(root: str) -> None:
    """List the runs, the newest last."""
    from helix_sae.run_history import find_runs  # noqa: PLC0415 - commands import what they need

    found = find_runs(root)
    for run in found:
        click.echo(
            f"{run.name}  {byte_size(run.n_bytes):>9}  {', '.join(run.pipelines)}  {run.sequences or ''}"
        )
    click.echo(f"{len(found)} runs in {root}.")


@runs.command()
@click.argument("name", default="latest")
@_data
def show(name: str, root: str) -> None:
    """Show one run, by its NAME or the beginning of it: what it read, its figures of merit, what it made."""
    from helix_sae.run_history import figures_of_merit, find_runs, run_named  # noqa: PLC0415

    run = run_named(find_runs(root), name)
    first = run.artefacts[0].provenance
    click.echo(f"{run.name}\n  pipelines   {', '.join(run.pipelines)}")
    click.echo(f"  sequences   {run.sequences or 'unknown'}")
    click.echo(f"  code        {first.get('code', {}).get('commit') or 'unknown'}")
    merits = figures_of_merit(run, root)
    if merits:
        click.echo("\nFigures of merit")
        _table((key, shown(value)) for key, value in merits.items())
    click.echo("\nWhat it made")
    _table((a.name, f"{byte_size(a.n_bytes):>9}  {a.folder}") for a in run.artefacts)


@runs.command()
@click.argument("one")
@click.argument("other", default="latest")
@_data
def diff(one: str, other: str, root: str) -> None:
    """Compare the parameters and the figures of merit of two runs."""
    from helix_sae.run_history import differences, figures_of_merit, find_runs, run_named  # noqa: PLC0415

    found = find_runs(root)
    a, b = run_named(found, one), run_named(found, other)
    for title, left, right in (
        ("Parameters", a.parameters, b.parameters),
        ("Figures of merit", figures_of_merit(a, root), figures_of_merit(b, root)),
    ):
        rows = differences(left, right)
        click.echo(f"{title}: {len(rows)} differ")
        _table((name, f"{shown(x)}  ->  {shown(y)}") for name, x, y in rows[:_SHOWN_DIFFERENCES])
        if len(rows) > _SHOWN_DIFFERENCES:
            click.echo(f"  ... and {len(rows) - _SHOWN_DIFFERENCES} more")


@runs.command()
@click.argument("name")
@_data
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(name: str, root: str, yes: bool) -> None:
    """Remove the versions of a run that no other run was made from, and the activations that only it needs."""
    from helix_sae.run_history import find_runs, plan_removal, remove, run_named  # noqa: PLC0415

    found = find_runs(root)
    removal = plan_removal(found, run_named(found, name))
    for artefact in removal.kept:
        click.echo(f"stays, as a later run was made from it: {artefact.name} {artefact.version}")
    n_bytes = sum(artefact.n_bytes for artefact in removal.removed)
    click.echo(f"{len(removal.removed)} versions of {byte_size(n_bytes)}, and the shards that only they name")
    if removal.removed and (yes or click.confirm("Remove them?")):
        click.echo(f"{byte_size(remove(removal, root))} freed.")


def byte_size(n_bytes: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            return f"{n_bytes:,.0f} {unit}" if unit == "B" else f"{n_bytes:,.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError("unreachable")


def shown(value: Any) -> str:
    """A value in a few letters."""
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _table(rows: Iterable[tuple[str, str]]) -> None:
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, text in listed:
        click.echo(f"  {name:<{width}}  {text}")
