"""The HTML environment: autoescaped templates, number formats, embedded figures."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
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


def render(template: str, *, cards: Mapping[str, str] | None = None, **values: Any) -> str:
    """Fill a template of the package; names of ``cards`` that its filter ``linked`` meets are links to them."""
    return environment().get_template(template).render(cards=_Cards(cards) if cards else None, **values)


def anchor(site: str, feature: object) -> str:
    """The id of a feature's page: its name, e.g. ``L2.mixer.137``."""
    return anchor_of(feature_name(site, feature))


def source(template: str) -> str:
    """A file of the templates as it stands."""
    env = environment()
    assert env.loader is not None
    return env.loader.get_source(env, template)[0]


class _Cards:
    """Makes links of the names of features: a look at each word of a text, however many names there are."""

    def __init__(self, cards: Mapping[str, str]) -> None:
        self._links = {str(escape(name)): str(escape(link)) for name, link in cards.items()}
        # Sites that are no paths of modules can hold anything.
        odd = sorted((name for name in self._links if not _NAME.fullmatch(name)), key=len, reverse=True)
        names = "|".join([*map(re.escape, odd), _NAME.pattern])
        # A name may end a sentence, but is no part of a longer one.
        self._found = re.compile(rf"(?<![\w.])(?:{names})(?!\w|\.\w)")

    def linked(self, text: Markup) -> Markup:
        return Markup(self._found.sub(self._link, str(text)))

    def _link(self, found: re.Match[str]) -> str:
        link = self._links.get(found[0])
        return found[0] if link is None else f'<a href="{link}">{found[0]}</a>'


_NAME = re.compile(r"[\w.]*\w")


@pass_context
def _linked(context: Context, value: object) -> Markup:
    """Text, escaped, in which names of features are links to their cards."""
    text, cards = escape(value), context.get("cards")
    return cards.linked(text) if cards else text


def escaped(text: str) -> str:
    """Text for use inside markup that is assembled by hand."""
    return html.escape(text, quote=True)
