"""What an artefact came from, and whether several of them came from the same.

The *origin* of a thing says what it was: its URL, its version, the SHA-256 of its content (for a model its
fingerprint), the names of what it was made from, and its *recipe*, a hash of how it was made. The *lineage*
of an artefact holds the origin of everything that it descends from, by name, up to the raw files and the
model. Two artefacts may be joined when no name that both lineages hold means two different things.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

Origin = Mapping[str, Any]
"""JSON: ``url``, ``version``, ``sha256`` or ``fingerprint``, ``recipe``, ``from`` (names), as far as there
are such."""

PARAMETER_PREFIX = "params:"

_WITHOUT_INFLUENCE = ("scratch", "folder")
"""Parameters that say where something lies, and change no result."""


@dataclass(frozen=True)
class Record:
    """An artefact, or a value that only a run holds, with what it descends from.

    Attributes
    ----------
    name : str
        As the catalog has it.
    origin : mapping
        Empty for what is not stored.
    lineage : mapping of str to origin
        Of everything that it descends from; not of itself.
    parameters : mapping of str to JSON
        Those with which it and what it descends from were made, by Kedro's names (``params:correlation``).
    """

    name: str
    origin: Origin = field(default_factory=dict)
    lineage: Mapping[str, Origin] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def origins(self) -> dict[str, Origin]:
        """Origins of what it descends from and of itself."""
        return {**self.lineage, **({self.name: self.origin} if self.origin else {})}


@dataclass(frozen=True)
class Conflict:
    """A name that means different things to several artefacts.

    Attributes
    ----------
    name : str
    current, other : origin
        What the newest artefact means by it, or what is read itself; and what others mean.
    holders, strays : tuple of str
        The artefacts that descend from the one, and from the other.
    """

    name: str
    current: Origin
    other: Origin
    holders: tuple[str, ...]
    strays: tuple[str, ...]


def identity(origin: Origin) -> str | None:
    """What two origins of the same thing have in common: the SHA-256 of the content; of a model, what decides its numbers."""
    parts = [
        str(origin[key]) for key in ("sha256", "fingerprint", "codon_markers", "dtype") if origin.get(key)
    ]
    return ":".join(parts) or None


def inherit(records: Iterable[Record]) -> dict[str, Origin]:
    """Lineage of what is made from some records."""
    return {name: origin for record in records for name, origin in record.origins().items()}


def inherit_parameters(records: Iterable[Record]) -> dict[str, Any]:
    """Parameters with which some records, and what they descend from, were made."""
    return {name: value for record in records for name, value in record.parameters.items()}


def recipe_of(node: str, output: str, parameters: Mapping[str, Any], inputs: Sequence[str], code: str) -> str:
    """Hash of how an output of a node is made.

    Parameters
    ----------
    node, output : str
    parameters : mapping
        JSON values by Kedro's names.
    inputs : sequence of str
        Recipes of the inputs, identities of what no node makes; in the order in which the node takes them.
    code : str
        Release of this package.

    Returns
    -------
    str
        SHA-256 in hexadecimal. Equal recipes give equal content on the same machine, as every node is
        deterministic.
    """
    content = [node, output, _with_influence(dict(parameters)), list(inputs), code]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _with_influence(value: Any) -> Any:
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return {k: _with_influence(v) for k, v in entries.items() if k not in _WITHOUT_INFLUENCE}
    if isinstance(value, list):
        return [_with_influence(entry) for entry in cast("list[Any]", value)]
    return value


def find_conflicts(records: Sequence[Record]) -> list[Conflict]:
    """Names that mean different things to the records; those first from which the others follow.

    A name conflicts only where both sides state an identity. A conflict that follows from another one (codes
    that differ because their autoencoders do) is left out.
    """
    meanings: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        for name, origin in record.origins().items():
            if (what := identity(origin)) is not None:
                meanings.setdefault(name, {}).setdefault(what, []).append(record)
    differing = {name: sides for name, sides in meanings.items() if len(sides) > 1}
    return [_conflict(name, differing[name]) for name in roots(differing, inherit(records))]


def roots(names: Iterable[str], graph: Mapping[str, Origin]) -> list[str]:
    """Those of some names that descend from none of the others."""
    given = set(names)
    return sorted(name for name in given if not _ancestors(name, graph) & given)


def _ancestors(name: str, graph: Mapping[str, Origin]) -> set[str]:
    """Names of all that something was made from, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for source in cast("Sequence[str]", graph.get(waiting.pop(), {}).get("from", ())):
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _conflict(name: str, sides: Mapping[str, Sequence[Record]]) -> Conflict:
    """What is read itself is right, else what the newest artefact came from."""

    def weight(side: Sequence[Record]) -> tuple[bool, str]:
        return any(r.name == name for r in side), max(str(r.origin.get("version") or "") for r in side)

    first, *rest = sorted(sides.values(), key=weight, reverse=True)
    others = [record for side in rest for record in side]
    return Conflict(
        name,
        first[0].origins()[name],
        others[0].origins()[name],
        tuple(r.name for r in first),
        tuple(r.name for r in others),
    )


def outdated(conflicts: Sequence[Conflict], records: Sequence[Record]) -> set[str]:
    """Names of what has to be made again: what descends from the other meaning of a name, and was not made again since."""
    by_name = {record.name: record for record in records}
    found: set[str] = set()
    for conflict in conflicts:
        made = set(inherit(by_name[name] for name in conflict.holders if name in by_name))
        for stray in conflict.strays:
            graph = by_name[stray].origins()
            found |= {name for name in graph if conflict.name in _ancestors(name, graph)} - made
        found.discard(conflict.name)
    return found


def describe_conflict(conflict: Conflict) -> str:
    """One conflict in words."""
    return (
        f"  {_some(conflict.holders)}: {conflict.name} {_shown(conflict.current)}\n"
        f"  {_some(conflict.strays)}: {conflict.name} {_shown(conflict.other)}"
    )


def _some(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _shown(origin: Origin) -> str:
    what = (identity(origin) or "")[:12]
    if not what:
        return "(which this run makes in another way)"
    version = f"version {origin['version']}, " if origin.get("version") else ""
    place = f"{origin['url']}, " if origin.get("url") and not origin.get("version") else ""
    return f"({version}{place}{'fingerprint' if origin.get('fingerprint') else 'SHA-256'} {what})"


def differing_parameters(
    asked: Mapping[str, Any], records: Iterable[Record]
) -> list[tuple[str, Any, str, Any]]:
    """Parameters that are asked for by a path of their own, and with another value of which an input was made.

    Parameters
    ----------
    asked : mapping
        By Kedro's names; only those below a group (``params:causal_acdc.target``) are compared: a whole group
        is shared by many nodes, and most of it is of no concern to what one of them made.

    Returns
    -------
    list of (name, value now, artefact, its value)
    """
    found: list[tuple[str, Any, str, Any]] = []
    for name, value in asked.items():
        group, *path = name.removeprefix(PARAMETER_PREFIX).split(".")
        if not path:
            continue
        for record in records:
            then = _at(record.parameters.get(f"{PARAMETER_PREFIX}{group}"), path)
            if then is not _ABSENT and then != value:
                found.append((name, value, record.name, then))
                break
    return found


_ABSENT = object()


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = cast("Mapping[str, Any]", value)[key]
    return value
