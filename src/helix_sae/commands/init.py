"""``helix-sae init``: a project of one's own, to keep settings, data and notebooks in."""

from __future__ import annotations

import shutil
from pathlib import Path

from helix_sae.commands.project import PACKAGE, find_shipped_project
from helix_sae.errors import ConfigurationError

_COPIED = (
    "conf",
    "data/01_raw/demo",
    "data/06_models/helix_mini",
    "data/06_models/helix_mini_saes",
    "notebooks",
    ".telemetry",
)
_KEDRO = """# Kedro knows the project by this table; its modules are those of the installed package.
[tool.kedro]
package_name = "{package}"
project_name = "{name}"
kedro_init_version = "{version}"
source_dir = "."
"""
_README = """# {name}

Made by `helix-sae init`. `conf/local` holds what differs here from `conf/base`; `data/01_raw`
is for your sequences.

    helix-sae run data/01_raw/my_sequences.csv --target my_column
    kedro run                       # the demo
    helix-sae runs ls
"""


def make_project(folder: str | Path) -> Path:
    """Make a project in a folder that is new or empty: configuration, demo, the small model, notebooks.

    Raises
    ------
    ConfigurationError
        If something is in the folder already.
    """
    from kedro import __version__ as kedro_version  # noqa: PLC0415

    target = Path(folder).expanduser().absolute()
    if target.exists() and any(target.iterdir()):
        raise ConfigurationError(f"{target} is not empty; name a new folder.")
    source = find_shipped_project()
    target.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        _copy(source / name, target / name)
    (target / "conf" / "local").mkdir(exist_ok=True)
    facts = {"package": PACKAGE, "name": target.name.replace('"', ""), "version": kedro_version}
    (target / "pyproject.toml").write_text(_KEDRO.format(**facts), encoding="utf-8")
    (target / "README.md").write_text(_README.format(**facts), encoding="utf-8")
    return target


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder that is there; the overrides of whoever made the package stay away."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=_not_the_own_overrides)
    elif source.is_file():
        shutil.copyfile(source, target)


def _not_the_own_overrides(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder).name == "local" and name != ".gitkeep"]
