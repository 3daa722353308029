"""The command line: ``helix-sae ...``, and what ``kedro`` learns from it (``kedro store ...``, short errors of ``kedro run``)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import click

from helix_sae import __version__
from helix_sae.commands.runs import byte_size, runs

_DEFAULT_STORE = "data/04_feature/activations"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="helix-sae")
@click.option("--debug", is_flag=True, help="Show the whole trace of an error.")
def app(debug: bool) -> None:
    """Open up an mRNA foundation model: sparse features, their biology, and which of them its predictions need.

    \b
    helix-sae run utrs.csv --target mrl            from a table to a report
    helix-sae run transcripts.fa --gff3 genes.gff3
    helix-sae apply utrs.csv                       features of new sequences, without training
    helix-sae runs ls                              what ran here
    helix-sae serve                                ask the model about any sequence, in the browser
    helix-sae doctor                               whether this machine is fit for a run
    """  # noqa: D301 - click's mark for lines that stay


def _of_a_file(command: Callable[..., None]) -> Callable[..., None]:
    """What every command that goes from a file to a report is told."""
    told = (
        click.option(
            "--sequence", metavar="COLUMN", help="Column of the sequences; guessed where there is one."
        ),
        click.option("--target", metavar="COLUMN", help="What to explain: a column of numbers or classes."),
        click.option(
            "--coding",
            metavar="LETTERS",
            help="What follows each 5'UTR, from the start codon on, e.g. AUGGGCGAA, "
            "where sequences are bare 5'UTRs.",
        ),
        click.option("--gff3", metavar="FILE", help="Coding regions of the transcripts of a FASTA file."),
        click.option(
            "--out", metavar="DIR", help="Where to write; by default helix-sae-<name of FILE> here."
        ),
        click.option(
            "--env", metavar="NAME", help="Environment of the project, e.g. helix for the released model."
        ),
    )
    for one in reversed(told):
        command = one(command)
    return command


@app.command()
@click.argument("file", required=False)
@_of_a_file
@click.option(
    "--label", "labels", metavar="COLUMN", multiple=True, help="A further property to relate; repeat."
)
@click.option(
    "--only",
    type=click.Choice(["sae", "correlation", "causal"]),
    help="One part, with what it needs and a report.",
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any parameter, e.g. sae_training.seed=1; repeat.",
)
def run(file: str | None, out: str | None, env: str | None, only: str | None, **wishes: Any) -> None:
    """Go from FILE, a file or a folder of sequences, to a report; without FILE, from those of the configuration (the demo).

    \b
    CSV, TSV, Parquet, JSON, FASTA and GenBank are read, plain or compressed.
    helix-sae run my_utrs.csv --target te_hek293 --coding AUGGGCGAA
    helix-sae run transcripts.fa --only sae --set sae_training.seed=1
    """  # noqa: D301
    from helix_sae.commands.run import Wishes, run_file  # noqa: PLC0415 - every kedro command imports this module

    run_file(file, Wishes(**wishes), out=out, env=env, only=only)


@app.command()
@click.argument("file")
@_of_a_file
@click.option(
    "--autoencoders",
    metavar="DIR",
    help="Others than those that come with the model, e.g. what helix-sae pull fetched.",
)
def apply(file: str, out: str | None, env: str | None, autoencoders: str | None, **wishes: Any) -> None:
    """Apply the autoencoders that come with the model to the sequences of FILE: no training.

    \b
    Gives codes, an AnnData, concepts and associations, and how well the autoencoders fit these sequences.
    helix-sae apply my_utrs.csv --coding AUGGGCGAA
    """  # noqa: D301
    from helix_sae.commands.run import Wishes, existing, run_file  # noqa: PLC0415

    # Nothing is trained: neither autoencoders, nor those of a model with random weights to compare them with.
    settings = ("sae_training.dictionaries=shipped", "correlation.concepts.random_model=false")
    if autoencoders is not None:
        settings += (f"autoencoders={existing(autoencoders)}",)
    run_file(file, Wishes(**wishes, settings=settings), out=out, env=env, only="correlation")


@app.command()
@click.argument("repository")
@click.option("--from", "folder", metavar="DIR", help="Their folder; the newest trained here by default.")
@click.option("--public", is_flag=True, help="A repository that is made is open to everybody.")
@click.option("--license", "license_id", metavar="ID", help="The hub's name of the licence on the card.")
def push(repository: str, folder: str | None, public: bool, license_id: str | None) -> None:
    """Write autoencoders with a model card to REPOSITORY (user/name on the Hugging Face hub) or to a folder.

    \b
    helix-sae push me/my-mrna-saes
    helix-sae push ./my-mrna-saes --from helix-sae-my_utrs/06_models/sae_checkpoints/VERSION/sae_checkpoints
    """  # noqa: D301
    from pathlib import Path  # noqa: PLC0415

    from helix_sae.commands import sharing  # noqa: PLC0415

    found = Path(folder) if folder else sharing.newest_autoencoders(Path("data"))
    place = sharing.push(found, repository, public=public, license_id=license_id or sharing.LICENSE)
    click.echo(f"{found} -> {place}")


@app.command()
@click.argument("repository")
@click.option("--out", metavar="DIR", help="A new folder; by default the repository's name, here.")
@click.option("--revision", metavar="COMMIT", help="A commit, branch or tag; the newest by default.")
def pull(repository: str, out: str | None, revision: str | None) -> None:
    """Fetch autoencoders from REPOSITORY (user/name on the Hugging Face hub) or from a folder.

    \b
    helix-sae pull me/my-mrna-saes
    helix-sae apply my_utrs.csv --autoencoders my-mrna-saes
    """  # noqa: D301
    from pathlib import Path  # noqa: PLC0415

    from helix_sae.commands import sharing  # noqa: PLC0415

    target = Path(out or repository.rstrip("/").rpartition("/")[2])
    saes = sharing.pull(repository, target.absolute(), revision=revision)
    click.echo(f"{target}: autoencoders of {', '.join(saes)}")


@app.command()
@click.argument("folder", metavar="DIR")
def init(folder: str) -> None:
    """Make a project of your own in DIR: configuration, the demo, the small model, notebooks."""
    from helix_sae.commands.init import make_project  # noqa: PLC0415

    made = make_project(folder)
    click.echo(f"{made}\nGo there (cd {folder}) and run: helix-sae run YOUR_FILE, or kedro run for the demo.")


@app.command()
@click.option("--model", metavar="FOLDER", help="Weights to try; the shipped helix_mini by default.")
def doctor(model: str | None) -> None:
    """Look at versions, device, disk and extras, and whether the model computes what it should."""
    from helix_sae.commands.doctor import examine  # noqa: PLC0415
    from helix_sae.commands.project import find_project  # noqa: PLC0415

    ill = 0
    for finding in examine(model or find_project() / "data" / "06_models" / "helix_mini"):
        mark = {True: "ok", False: "!!", None: "  "}[finding.well]
        ill += finding.well is False
        click.echo(f"{mark} {finding.what:<14} {finding.found}")
    click.echo("All is well." if not ill else f"{ill} of these are not well.")
    if ill:
        sys.exit(1)


@app.command()
@click.argument("run", default="latest")
@click.option(
    "--data", "root", default="data", show_default=True, metavar="DIR", help="Data root of the runs."
)
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: any free.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; any but this machine's own asks for a token.",
)
def serve(run: str, root: str, port: int, host: str) -> None:
    """Serve the atlas of RUN with the model behind it: paste a sequence, edit it, intervene, search by example.

    RUN is the name of a run or the beginning of it (see helix-sae runs ls). Where nothing has run yet, the
    model and autoencoders that come with the package are served.

    \b
    helix-sae serve
    helix-sae serve --data helix-sae-my_utrs --port 9000
    """  # noqa: D301
    import logging  # noqa: PLC0415

    logging.disable(logging.INFO)  # Kedro says on import where its log is set up
    from helix_sae.commands.serve import open_served, serve_at  # noqa: PLC0415 - brings torch

    # On the other stream: who starts it from a script reads the address from the first line.
    click.echo("Opening the model and a sample of the sequences…", err=True)
    served = open_served(run, root)
    serve_at(served, host, port, click.echo)


class _KedroCommands(click.Group):
    """What is added to ``kedro``; its own ``run`` with errors of one screen."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return [*super().list_commands(ctx), "run"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name; ``run`` is Kedro's."""
        if cmd_name != "run":
            return super().get_command(ctx, cmd_name)
        from kedro.framework.cli.project import run as kedro_run  # noqa: PLC0415 - not for helix-sae's commands

        command = click.Command("run", params=kedro_run.params, help=kedro_run.help)
        command.callback = _short_errors(cast("Callable[..., Any]", kedro_run.callback))
        return command


@click.group(cls=_KedroCommands)
def cli() -> None:
    """Sparse features of Helix-mRNA."""


def _short_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show errors of this package without a trace: they say what is wrong, where, and what to do."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except Exception as error:
            cause = _named_cause(error)
            if cause is None:
                raise
            raise click.ClickException(str(cause)) from error

    return call


@cli.group()
def store() -> None:
    """Look after stores of activations, found below a folder (or any fsspec URL)."""


@store.command()
@click.argument("url", default=_DEFAULT_STORE)
def ls(url: str) -> None:
    """List the versions and their sizes."""
    from helix_sae.shards.maintenance import list_versions  # noqa: PLC0415 - every kedro command imports this module

    shared: dict[str, int] = {}
    for version in list_versions(url):
        content = version.manifest
        shared.update({path: int(entry["bytes"]) for path, entry in version.shards.items()})
        click.echo(
            f"{version.version or '(no version)'}  {byte_size(version.n_bytes):>10} "
            f" {content['n_sequences']:,} sequences  {content['n_tokens']:,} tokens  {len(content['sites'])}"
            f" sites  {content['dtype']}  model {str(content['fingerprint'])[:12]}"
        )
    click.echo(
        f"{len(shared):,} shards of {byte_size(sum(shared.values()))} in all; versions share equal ones."
    )


@store.command()
@click.argument("url", default=_DEFAULT_STORE)
def verify(url: str) -> None:
    """Read every shard and compare its SHA-256; exits with 1 if one is damaged."""
    from helix_sae.shards.maintenance import verify_store  # noqa: PLC0415

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
@click.option("--delete", is_flag=True, help="Take the files away; without it they are only listed.")
@click.option(
    "--older-than",
    "hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="Leave younger files alone: a run under way has not written its manifest yet.",
)
@click.option(
    "--keep",
    "kept_hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="Keep what is taken away in the trash for so long; `store restore` puts it back.",
)
def gc(url: str, delete: bool, hours: float, kept_hours: float) -> None:
    """Find what no version needs and what killed runs left, and take it away with --delete."""
    from helix_sae.shards import maintenance  # noqa: PLC0415

    garbage = maintenance.find_garbage(url, hours * 3600)
    uploads = maintenance.abandoned_uploads(url, hours * 3600)
    for path, size in garbage.items():
        click.echo(f"{byte_size(size):>10}  {path}")
    for upload in uploads:
        click.echo(f"{'upload':>10}  {upload['Bucket']}/{upload['Key']} (never completed)")
    what = (
        f"{len(garbage):,} files of {byte_size(sum(garbage.values()))} and {len(uploads):,} unfinished"
        " uploads"
    )
    if not delete:
        click.echo(f"{what} could be removed (--delete does it).")
        return
    trash = maintenance.remove_garbage(url, garbage, keep_s=kept_hours * 3600)
    maintenance.abort_uploads(url, uploads)
    kept = f"; the files are in {trash} until a gc after {kept_hours:g} hours" if trash else ""
    click.echo(f"{what} removed{kept}.")


@store.command()
@click.argument("url", default=_DEFAULT_STORE)
def restore(url: str) -> None:
    """Put back what gc took away and is still in the trash."""
    from helix_sae.shards.maintenance import restore as put_back  # noqa: PLC0415

    paths = put_back(url)
    for path in paths:
        click.echo(path)
    click.echo(f"{len(paths):,} files are back.")


app.add_command(store)
app.add_command(runs)


def main() -> None:
    """Run the command line; errors of this package are shown without a trace unless ``--debug`` is given."""
    try:
        app(prog_name="helix-sae")
    except Exception as error:
        cause = _named_cause(error)
        if cause is None or "--debug" in sys.argv[1:]:
            raise
        click.echo(f"Error: {cause}", err=True)
        sys.exit(1)


def _named_cause(error: BaseException) -> Exception | None:
    from helix_sae.commands.project import named_cause  # noqa: PLC0415

    return named_cause(error)
