"""The HTML environment: autoescaped templates, number formats, embedded figures."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from helix_sae.figures.style import property_label
from helix_sae.names import anchor_of, feature_name
from helix_sae.reporting import wording


@cache
def environment() -> Environment:
    """Templates of the package; every value that they print is escaped unless a template marks it safe."""
    env = Environment(
        loader=PackageLoader("helix_sae.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {  # pyright: ignore[reportAttributeAccessIssue]
        "number": wording.number,
        "fixed": wording.fixed,
        "signed": wording.signed,
        "percent": wording.percent,
        "probability": wording.probability,
        "interval": wording.interval,
        "bounds": lambda ends, decimals=2: wording.interval(*ends, decimals),  # pyright: ignore[reportCallIssue]
        "count": wording.count,
        "linked": _linked,
        "property": property_label,
        "words": wording.words,
        "thousands": lambda n: f"{int(n):,}",  # pyright: ignore[reportArgumentType]
    }
    env.globals |= {"feature_name": feature_name}  # pyright: ignore[reportAttributeAccessIssue]
    return env


def render(template: str, **values: Any) -> str:
    """Fill a template of the package."""
    return environment().get_template(template).render(**values)


def anchor(site: str, feature: object) -> str:
    """The id of a feature's page: its name, e.g. ``L2.mixer.137``."""
    return anchor_of(feature_name(site, feature))


def source(template: str) -> str:
    """A file of the templates as it stands."""
    env = environment()
    assert env.loader is not None
    return env.loader.get_source(env, template)[0]


@pass_context
def _linked(context: Context, value: object) -> Markup:
    """Text, escaped, in which names of features are links to their cards; ``cards`` of the page says which."""
    text, cards = escape(value), context.get("cards")
    if not cards:
        return text

    def link(found: re.Match[str]) -> str:
        place = cards.get(found[0])
        return found[0] if place is None else f'<a href="{escape(place)}">{found[0]}</a>'

    return Markup(_NAME.sub(link, str(text)))


_NAME = re.compile(r"(?<![\w.])[\w.]*\w(?!\w|\.\w)")
"""What may be a feature's name: it may end a sentence, but is no part of a longer word."""


def escaped(text: str) -> str:
    """Text for use inside markup that is assembled by hand."""
    return html.escape(text, quote=True)
