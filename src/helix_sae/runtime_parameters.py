"""What ``kedro run --params`` may name: Kedro takes any name and says nothing where nobody reads it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import cast

import yaml

from helix_sae.errors import ConfigurationError

_SUFFIXES = (".yml", ".yaml", ".json")
_READ_BY_CATALOG = re.compile(r"\$\{runtime_params:\s*(\w+)")


def settable_names(folders: Iterable[Path]) -> set[str]:
    """Names that the configuration of some environments lets the command line set.

    These are the names at the top of their parameters, and those that their catalogs ask for.

    Parameters
    ----------
    folders : iterable of Path
        Configuration of each environment, e.g. ``conf/base``; one that does not exist has none.
    """
    names: set[str] = set()
    for folder in folders:
        for path in _files(folder, "parameters"):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            names.update(str(name) for name in cast("dict[object, object]", content or {}))
        for path in _files(folder, "catalog"):
            names.update(_READ_BY_CATALOG.findall(path.read_text(encoding="utf-8")))
    return names


def _files(folder: Path, kind: str) -> Iterator[Path]:
    """Files that Kedro reads for a kind of configuration."""
    for path in sorted(folder.rglob("*")):
        named = any(part.startswith(kind) for part in path.relative_to(folder).parts)
        if named and path.suffix in _SUFFIXES and path.is_file():
            yield path


def check_runtime_parameters(given: Collection[str], settable: Collection[str]) -> None:
    """Make sure that each name given on the command line can be set there.

    Raises
    ------
    ConfigurationError
        Naming the first that cannot, and what to do instead.
    """
    for name in given:
        if name in settable:
            continue
        close = difflib.get_close_matches(name, list(settable), n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(
            f"--params names {name!r}, which nothing reads.{meant} There are: {', '.join(sorted(settable))}."
        )
