"""Commands beside Kedro's own: ``helix-sae store ...``, also reachable as ``kedro store ...``."""

from __future__ import annotations

import sys

import click

_DEFAULT_STORE = "data/04_feature/activations"


@click.group()
def cli() -> None:
    """Sparse features of Helix-mRNA."""


@cli.group()
def store() -> None:
    """Look after a store of activations (a folder, or any fsspec URL)."""


@store.command()
@click.argument("url", default=_DEFAULT_STORE)
def ls(url: str) -> None:
    """List the versions and their sizes."""
    from helix_sae.activations.maintenance import list_versions  # noqa: PLC0415 - every kedro command imports this module

    shared: dict[str, int] = {}
    for version in list_versions(url):
        content = version.manifest
        shared.update({str(entry["file"]): int(entry["bytes"]) for entry in content["shards"]})
        click.echo(
            f"{version.version or '(no version)'}  {_size(version.n_bytes):>10}  {content['n_sequences']:,} sequences  "
            f"{content['n_tokens']:,} tokens  {len(content['sites'])} sites  {content['dtype']}  "
            f"model {str(content['fingerprint'])[:12]}"
        )
    click.echo(f"{len(shared):,} shards of {_size(sum(shared.values()))} in all; versions share equal ones.")


@store.command()
@click.argument("url", default=_DEFAULT_STORE)
def verify(url: str) -> None:
    """Read every shard and compare its SHA-256; exits with 1 if one is damaged."""
    from helix_sae.activations.maintenance import verify_store  # noqa: PLC0415

    checked = damaged = 0
    for problem in verify_store(url):
        checked += 1
        if problem is not None:
            damaged += 1
            click.echo(
                f"{problem.path} {problem.what} (needed by {', '.join(problem.versions) or 'the store'})",
                err=True,
            )
    click.echo(f"{checked:,} files checked, {damaged:,} damaged.")
    if damaged:
        click.echo(
            "Remove the damaged shards and run the extraction again: only these are recomputed.", err=True
        )
        sys.exit(1)


@store.command()
@click.argument("url", default=_DEFAULT_STORE)
@click.option("--delete", is_flag=True, help="Remove the files; without it they are only listed.")
@click.option(
    "--older-than",
    "hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="Leave younger files alone: a run under way has not written its manifest yet.",
)
def gc(url: str, delete: bool, hours: float) -> None:
    """Find shards that no version needs and half-written files, and remove them with --delete."""
    from helix_sae.activations.maintenance import find_garbage, remove_garbage  # noqa: PLC0415

    garbage = find_garbage(url, hours * 3600)
    for path, size in garbage.items():
        click.echo(f"{_size(size):>10}  {path}")
    if delete:
        remove_garbage(url, garbage)
    done = "removed" if delete else "could be removed (--delete does it)"
    click.echo(f"{len(garbage):,} files of {_size(sum(garbage.values()))} {done}.")


def main() -> None:
    """Run the command line; errors of this package are shown without a traceback."""
    from helix_sae.errors import HelixSaeError  # noqa: PLC0415

    try:
        cli()
    except HelixSaeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            return f"{n_bytes:,.0f} {unit}" if unit == "B" else f"{n_bytes:,.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError("unreachable")
