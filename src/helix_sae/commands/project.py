"""Where the project is that a command works in, and a run of its pipelines."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from helix_sae.errors import ConfigurationError, HelixSaeError

PACKAGE = "helix_sae"


def find_project(start: Path | None = None) -> Path:
    """The folder of the project: the one that the command is given in, or one above it; else what the package brings along.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    here = (start or Path.cwd()).resolve()
    own = next((folder for folder in (here, *here.parents) if _is_project(folder)), None)
    return find_shipped_project() if own is None else own


def find_shipped_project() -> Path:
    """The project that the package brings along.

    Raises
    ------
    ConfigurationError
        If the package was installed without it.
    """
    package = Path(__file__).resolve().parents[1]
    checkout, wheel = package.parents[1], package / "project"  # an editable installation, or setup.py's copy
    for folder in (checkout, wheel):
        if _is_project(folder):
            return folder
    raise ConfigurationError(
        "The package was installed without its configuration; install it again from the wheel."
    )


def _is_project(folder: Path) -> bool:
    file = folder / "pyproject.toml"
    if not file.is_file() or not (folder / "conf" / "base").is_dir():
        return False
    with file.open("rb") as opened:
        tools = tomllib.load(opened).get("tool", {})
    return tools.get("kedro", {}).get("package_name") == PACKAGE


def run_pipelines(
    project: Path, env: str | None, parameters: Mapping[str, Any], pipelines: Sequence[str] | None, log: Path
) -> None:
    """``kedro run`` with these parameters, in this process; what it logs goes into the file ``log``."""
    logging.disable(logging.INFO)  # Kedro says on import where its log is set up; it is set up anew below
    from kedro.framework.session import KedroSession  # noqa: PLC0415 - two seconds that `--help` should not take
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415

    logging.disable(logging.NOTSET)
    bootstrap_project(project)  # which also sets up the log of Kedro
    with log_into(log), KedroSession.create(project, env=env, runtime_params=dict(parameters)) as session:
        cast("Any", session).run(pipeline_names=None if pipelines is None else list(pipelines))


def configured_places(project: Path, env: str | None) -> tuple[str, Path]:
    """What the configuration names: the sequences that a run reads, and the local folder that it writes into.

    A project that came with the package is not written into: a folder here takes its place.

    Raises
    ------
    ConfigurationError
        If it writes to no local folder: ``--out`` then names one.
    """
    logging.disable(logging.INFO)
    from kedro.framework.session import KedroSession  # noqa: PLC0415
    from kedro.framework.startup import bootstrap_project  # noqa: PLC0415

    bootstrap_project(project)
    with KedroSession.create(project, env=env) as session:
        named = cast("Any", session).load_context().config_loader["globals"]
    logging.disable(logging.NOTSET)
    root = str(named["data_root"])
    if "://" in root:
        raise ConfigurationError(f"The data root is {root}; --out names a folder of this machine.")
    inside = Path.cwd().resolve().is_relative_to(project.resolve())
    return str(named["sequences"]), project / root if inside else Path("helix-sae-demo").absolute()


def named_cause(error: BaseException) -> HelixSaeError | None:
    """The error of this package that another one was raised from, if there is one: Kedro wraps those of datasets.

    Parameters that cannot be are Kedro's own error, and told like one of ours.
    """
    from kedro.validation import ParameterValidationError  # noqa: PLC0415 - not for commands that run nothing

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HelixSaeError):
            return seen
        if isinstance(seen, ParameterValidationError):
            lines = [line for line in str(seen).splitlines() if "For further information visit" not in line]
            return ConfigurationError(
                "\n".join([*lines, "Correct the parameters; conf/base has all of them with their defaults."])
            )
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def log_into(file: Path) -> Iterator[None]:
    """Send the whole log to a file and keep the terminal free, while the block runs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    before = list(root.handlers)
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        root.handlers[:] = before
        logging.captureWarnings(False)
        handler.close()
