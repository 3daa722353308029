"""The pages of the site that are made from the code, so that they cannot say something else than it does.

``write`` makes all of them below one folder, which git ignores. Each page is a function that returns Markdown.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import yaml
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import helix_sae
from helix_sae import errors
from helix_sae.pipeline_registry import DEFAULT_PIPELINES

ROOT = Path(__file__).parents[1]
SOURCE = Path(helix_sae.__file__).parent

LIBRARIES = (
    "models", "shards", "activations", "sae", "codes", "mrna", "statistics", "causal", "tables", "figures", "reporting",
    "explorer", "datasets",
)  # fmt: skip
"""Packages with pages in the API, in the order of the flow; one that is not there has none."""

_BOUNDS = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}


def write(folder: Path) -> None:
    """Write every made page; a page that has not changed keeps its time, so that Sphinx does not read it again."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "parameters.md": parameters(),
        "data_dictionary.md": data_dictionary(),
        "errors.md": error_catalogue(),
        **api(),
    }
    for stale in set(folder.glob("*.md")) - {folder / name for name in pages}:
        stale.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- parameters


def parameters() -> str:
    """Every parameter of every pipeline: its key, type, bounds, value and meaning."""
    page = [
        "# Parameters\n",
        "Made from the pydantic models that check them before anything runs. *Value* is what `conf/base` says, or the "
        "model's own default. Set one in `conf/local/<pipeline>/parameters.yml`, or for one run with "
        '`kedro run --params "sae_training.seed=1"`.\n',
    ]
    for name in pipeline_names():
        module = import_module(f"helix_sae.pipelines.{name}.parameters")
        page += _model_section(f"`{name}`", _outermost(module), name, _base_values(name).get(name, {}))
    engine = import_module("helix_sae.engine").EngineParameters
    page += _model_section("`engine`", engine, "engine", _base_values("")["engine"])
    return "\n".join(page)


def pipeline_names() -> list[str]:
    """The pipelines in the order in which they run; those that run on request come last."""
    found = [m.name for m in pkgutil.iter_modules([str(SOURCE / "pipelines")]) if m.ispkg]
    return [*DEFAULT_PIPELINES, *sorted(set(found) - set(DEFAULT_PIPELINES))]


def _outermost(module: ModuleType) -> type[BaseModel]:
    """The model of a module that is no part of another one of it."""
    models = [m for m in vars(module).values() if _is_model(m) and m.__module__ == module.__name__]
    parts = {
        part
        for model in models
        for field in model.model_fields.values()
        for part in _models_in(field.annotation)
    }
    (outermost,) = [model for model in models if model not in parts]
    return outermost


def _model_section(title: str, model: type[BaseModel], prefix: str, values: dict[str, Any]) -> list[str]:
    """A heading, what the model is, a table of its parameters, and a section for each kind of entry it may hold."""
    inner: dict[str, list[type[BaseModel]]] = {}
    rows = list(_rows(model, prefix, values, inner))
    section = [
        f"## {title}\n",
        f"{_prose(_summary(model))}\n",
        "| key | type | value | meaning |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    for key, models in inner.items():
        for entry in models:
            section.append(f"### An entry of `{key}`: {entry.__name__}\n")
            section.append(f"{_prose(_summary(entry))}\n")
            section += [
                "| key | type | value | meaning |",
                "|---|---|---|---|",
                *_rows(entry, "", {}, {}),
                "",
            ]
    return section


def _rows(
    model: type[BaseModel], prefix: str, values: dict[str, Any], inner: dict[str, list[type[BaseModel]]]
) -> Iterator[str]:
    meanings = attributes_of(model)
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        parts = _models_in(field.annotation)
        held_many = any(kind in str(field.annotation) for kind in ("dict[", "list["))
        if len(parts) == 1 and not held_many:
            given = values.get(name)
            value = "`null`" if _default(field) is None and given is None else ""
            yield _row(
                key,
                "a group" if not value else "a group, or `null`",
                value,
                _meaning(meanings, name, parts[0]),
            )
            yield from _rows(parts[0], key, given or {}, inner)
            continue
        if parts:
            inner[key] = parts
        value = values.get(name, _default(field))
        yield _row(key, _type(field), _literal(value), _meaning(meanings, name, None))


def _row(key: str, kind: str, value: str, meaning: str) -> str:
    return f"| `{key}` | {kind} | {value} | {meaning} |"


def _meaning(meanings: dict[str, str], name: str, part: type[BaseModel] | None) -> str:
    text = meanings.get(name, "") or (_summary(part) if part else "")
    return _prose(text).replace("|", "\\|")


def _default(field: FieldInfo) -> Any:
    if field.default is not PydanticUndefined:
        return field.default
    return field.default_factory() if field.default_factory else _REQUIRED  # type: ignore[call-arg]


_REQUIRED = object()


def _literal(value: Any) -> str:
    if value is _REQUIRED:
        return "*has to be given*"
    if isinstance(value, BaseModel):
        return ""
    text = (
        yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    )
    if len(text) > 60:
        return "*see the file*"
    return f"`{text}`".replace("|", "\\|")


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(extra, attribute):g}"
        for extra in field.metadata
        for kind, (sign, attribute) in _BOUNDS.items()
        if isinstance(extra, kind)
    ]
    lengths = [f"at least {e.min_length}" for e in field.metadata if isinstance(e, MinLen)]
    lengths += [f"at most {e.max_length}" for e in field.metadata if isinstance(e, MaxLen)]
    return ", ".join([_type_name(field.annotation), *bounds, *lengths]).replace("|", "\\|")


def _type_name(annotation: Any) -> str:
    if annotation is type(None):
        return "`null`"
    arguments = get_args(annotation)
    if not arguments:
        return annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    origin = getattr(annotation, "__origin__", None)
    if str(origin) == "typing.Literal":
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (dict, list, tuple, set):
        inside = [_type_name(argument) for argument in arguments if argument is not Ellipsis]
        return (
            f"dict of {inside[0]} to {inside[1]}" if origin is dict else f"{origin.__name__} of {inside[0]}"
        )
    if str(origin) == "typing.Annotated" or hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    return " or ".join(dict.fromkeys(_type_name(argument) for argument in arguments))


def _is_model(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseModel)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every pydantic model inside a type, in order."""
    if _is_model(annotation):
        return [annotation]
    found = [model for argument in get_args(annotation) for model in _models_in(argument)]
    return list(dict.fromkeys(found))


def _base_values(pipeline: str) -> dict[str, Any]:
    path = ROOT / "conf" / "base" / pipeline / "parameters.yml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def _summary(documented: Any) -> str:
    """First paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(documented.__doc__ or "").split("\n\n")[0].split())


def attributes_of(documented: type) -> dict[str, str]:
    """What the docstrings of a class and of those that it stems from say of each attribute, by name."""
    meanings: dict[str, str] = {}
    for base in reversed(inspect.getmro(documented)):
        lines = inspect.cleandoc(base.__dict__.get("__doc__") or "").splitlines()
        section, names = "", []
        for line, following in pairwise([*lines, ""]):
            if following.startswith("---"):
                section, names = line, []
            elif section not in ("Attributes", "Parameters") or line.startswith("---"):
                continue
            elif line and not line.startswith(" "):
                names = [name.strip() for name in line.split(" : ")[0].split(",")]
                meanings.update(dict.fromkeys(names, ""))
            else:
                meanings.update({name: f"{meanings[name]} {line.strip()}".strip() for name in names})
    return meanings


def _prose(text: str) -> str:
    """Text of a docstring as Markdown: roles and double backticks become code."""
    text = re.sub(r":(?:class|func|mod|data|meth|attr):`~?([^`]+)`", r"`\1`", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


# ---------------------------------------------------------------- errors


def error_catalogue() -> str:
    """Every error that users meet, and every message with which it is raised, found in the source."""
    messages: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for name, text in raised_messages(path.read_text(encoding="utf-8")):
            messages.setdefault(name, []).append((_module_name(path), text))
    page = [
        "# Errors\n",
        _prose(inspect.cleandoc(errors.__doc__ or "").split("\n\n", 1)[1]) + "\n",
        "Below stands every message in the source, *…* where it fills in a value. Search this page for the words you saw.\n",
    ]
    for error in _by_descent(errors.HelixSaeError):
        bases = "" if error is errors.HelixSaeError else f" (a {error.__base__.__name__})"
        page.append(f"## {error.__name__}\n\n{_prose(_summary(error))}{bases}\n")
        for module, text in sorted(set(messages.get(error.__name__, []))):
            page.append(f"- {_escaped(text)} <br>*in* `{module}`")
        page.append("")
    return "\n".join(page)


def raised_messages(source: str) -> Iterator[tuple[str, str]]:
    """Name of the class and message of each ``raise Class("message")`` in Python source."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and isinstance(node.exc.func, ast.Name)
            and node.exc.args
        ):
            text = _template(node.exc.args[0])
            if text is not None:
                yield node.exc.func.id, text


def _template(node: ast.expr) -> str | None:
    """A string with an ellipsis for each value that is filled in; None where there is no fixed text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
    if isinstance(node, ast.BinOp):
        sides = _template(node.left), _template(node.right)
        return "".join(side or "…" for side in sides) if any(sides) else None
    return None


def _by_descent(error: type[Exception]) -> Iterator[type[Exception]]:
    yield error
    for child in error.__subclasses__():
        yield from _by_descent(child)


def _module_name(path: Path) -> str:
    return ".".join(["helix_sae", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


def _escaped(text: str) -> str:
    text = re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", " ".join(text.split()))
    return text


# ---------------------------------------------------------------- data dictionary


def data_dictionary() -> str:
    """Every table and file that a run reads or leaves, with the columns of those that have a schema."""
    page = [
        "# Data dictionary\n",
        "Everything between pipelines and everything that a run leaves has a name in the catalog "
        "(`conf/base/<pipeline>/catalog.yml`). `kedro.load(...)`, Kedro-Viz and notebooks know it by that name.\n",
    ]
    schemas = _schemas()
    for pipeline in pipeline_names():
        entries = _catalog(pipeline)
        if not entries:
            continue
        page += [f"## {pipeline}\n", "| name | place | format | a version a run |", "|---|---|---|---|"]
        for name, entry in sorted(entries.items()):
            place = str(entry.get("filepath") or entry.get("path") or "").replace(
                "${globals:data_root}", "data"
            )
            versioned = "yes" if entry.get("versioned") else ""
            page.append(f"| `{name}` | {f'`{place}`' if place else ''} | `{_format(entry)}` | {versioned} |")
        page.append("")
        for name in sorted(set(entries) & set(schemas)):
            page += schemas.pop(name)
    for section in schemas.values():
        page += section
    return "\n".join(page)


def _catalog(pipeline: str) -> dict[str, dict[str, Any]]:
    path = ROOT / "conf" / "base" / pipeline / "catalog.yml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: entry for name, entry in (entries or {}).items() if not name.startswith("_")}


def _format(entry: dict[str, Any]) -> str:
    return str(entry.get("type", "")).removeprefix("helix_sae.datasets.")


def _schemas() -> dict[str, list[str]]:
    """Columns of the tables that have a schema, by the name of the table."""
    if not (SOURCE / "tables" / "__init__.py").exists():
        return {}
    return {
        name: schema_section(name, table) for name, table in import_module("helix_sae.tables").SCHEMAS.items()
    }


def schema_section(name: str, table: Any) -> list[str]:
    """A heading, what a row is, and a table of the columns: type and bounds, unit, meaning."""
    rows = []
    for column, said in table.columns.items():
        bounds = [
            f"{sign} {bound:g}" for sign, bound in (("≥", said.low), ("≤", said.high)) if bound is not None
        ]
        kind = ", ".join([said.kind, *bounds, *(["may be missing"] if said.nullable else [])])
        rows.append(f"| `{column}` | {kind} | {said.unit or ''} | {_prose(said.meaning)} |")
    heading = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    return [f"### {name}\n", f"{_prose(table.meaning)}\n", *heading, *rows, ""]


# ---------------------------------------------------------------- API


def api() -> dict[str, str]:
    """A page for each library, with a section for each of its modules."""
    pages: dict[str, str] = {}
    rows = []
    for name in LIBRARIES:
        if not (SOURCE / name / "__init__.py").exists():
            continue
        package = import_module(f"helix_sae.{name}")
        rows.append((f"api_{name}", f"- [`helix_sae.{name}`](api_{name}.md): {_prose(_summary(package))}"))
        modules = [f"helix_sae.{name}", *sorted(_modules_below(package))]
        pages[f"api_{name}.md"] = "\n".join([f"# helix_sae.{name}\n", *map(_automodule, modules)])
    top = "\n".join(
        ["# The rest\n", *map(_automodule, ["helix_sae", "helix_sae.errors", "helix_sae.engine"])]
    )
    index = [
        "# API\n",
        "Everything below `pipelines` and `datasets` is a library by itself; nothing here needs Kedro but `datasets`.\n",
        *(row for _, row in rows),
        "- [`helix_sae`, `helix_sae.errors`, `helix_sae.engine`](api_rest.md)\n",
        "```{toctree}\n:hidden:\n",
        *(page for page, _ in rows),
        "api_rest\n```",
    ]
    return {**pages, "api_rest.md": top, "api.md": "\n".join(index)}


def _modules_below(package: ModuleType) -> Iterator[str]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


def _automodule(name: str) -> str:
    """A module with its members; of a package its text and the names that it offers, which are described where they live."""
    module = import_module(name)
    heading = "" if name in {f"helix_sae.{library}" for library in LIBRARIES} else f"## {name}\n\n"
    if not hasattr(module, "__path__"):
        return f"{heading}```{{eval-rst}}\n.. automodule:: {name}\n```\n"
    offered = ", ".join(f"`{public}`" for public in getattr(module, "__all__", ()))
    offers = f"\nOffers {offered}.\n" if offered else ""
    return f"{heading}```{{eval-rst}}\n.. automodule:: {name}\n   :no-members:\n```\n{offers}"
