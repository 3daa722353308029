"""Pages as a browser sees them: what is text, what is markup, and what would be fetched or run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Collection, Mapping
from html.parser import HTMLParser
from typing import Any, NamedTuple

VOID = {"meta", "img", "line", "rect", "br", "hr"}
HOSTILE = "<script>alert('x')</script>\"'&<img src=http://example.org/x onerror=alert(1)>$\\frac{$"
"""A name that breaks out of text, of an attribute in either quotes, and calls out, where it is not escaped; with a formula
that matplotlib would try to set, and fail."""

_TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "div",
        "span",
        "header",
        "main",
        "footer",
        "section",
        "article",
    ),
    *(
        "h1",
        "h2",
        "h3",
        "p",
        "ul",
        "li",
        "b",
        "i",
        "a",
        "nav",
        "code",
        "dl",
        "dt",
        "dd",
        "figure",
        "figcaption",
    ),
    *("script", "noscript"),
    *("img", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "line", "rect"),
}


class Page(HTMLParser):
    """Elements, ids, links and visible text of a page; raises at markup that does not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.style = ""
        self.title = ""
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of <{tag}> comes twice: {attrs}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append((self.elements[-1][1], data))
        elif "style" in self.open:
            self.style += data
        elif "title" in self.open:
            self.title += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Attributes of the elements of a tag (``class_`` for class)."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]

    @property
    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.elements if "id" in a]


def self_contained(html: str, beside: Collection[str] = ()) -> Page:
    """The page, after looking for anything that runs, is fetched, is no element of ours, or links elsewhere than
    into the page itself or to the places ``beside``."""
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag in _TAGS, f"an element that no template writes: <{tag}>"
        for name, value in attributes.items():
            assert not name.startswith("on"), f"<{tag} {name}> would run"
            if name == "src":
                assert value.startswith("data:image/png;base64,"), f"<{tag} src> is fetched: {value[:80]}"
            if name == "href" and value not in beside:
                assert value.startswith("#"), f"<{tag} href> leads away: {value[:80]}"
                assert value[1:] in page.ids, f"{value} leads nowhere"
            assert name != "style" or ("url(" not in value and "{" not in value), value
    assert "url(" not in page.style
    assert "@import" not in page.style
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert [p["content"].split(";")[0] for p in policy] == ["default-src 'none'"]
    for attributes, script in page.scripts:
        if attributes.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert attributes == {}, "a script that is fetched"
            assert f"'sha256-{digest}'" in policy[0]["content"], "a script that the policy does not name"
    assert len(page.scripts) == len(page.all("script"))
    assert len(set(page.ids)) == len(page.ids), "an id comes twice"
    return page


class Atlas(NamedTuple):
    """The files of an atlas as its page reads them.

    Attributes
    ----------
    page : Page
    columns : dict of dict
        Of the index, by their keys; ``said`` is what stands in each row, None where it is missing.
    cards : dict of dict
        By the names of their features.
    first : list of str
        Features that the index begins with.
    """

    page: Page
    columns: dict[str, dict[str, Any]]
    cards: dict[str, dict[str, Any]]
    first: list[str]

    def words(self, name: str) -> str:
        """Everything that stands on a card."""
        return " ".join(_texts(self.cards[name]))

    def blocks(self, name: str, kind: str) -> list[list[Any]]:
        """Blocks of one kind on a card, without their kind."""
        card = self.cards[name]
        return [block[1:] for part in ("left", "right", "below") for block in card[part] if block[0] == kind]


def opened(files: Mapping[str, bytes]) -> Atlas:
    """Read an atlas, after looking for anything that runs or is fetched besides the page's own script and its chunks."""
    html = files["index.html"].decode()
    data = json.loads(dict_of_scripts(html)["atlas-data"])
    columns = {column["key"]: column for column in data["columns"]}
    for column in columns.values():
        if "words" in column:
            assert column["words"] == [*dict.fromkeys(column["words"])]
            column["said"] = [column["words"][code] if code >= 0 else None for code in column["codes"]]
        else:
            column["said"] = column.get("values")
    names = columns["name"]["said"] if columns else []
    found: list[dict[str, Any]] = []
    for number, name in enumerate(sorted(set(files) - {"index.html", "sequences.js"})):
        assert name == f"cards/{number:05d}.js"
        found += unpacked(files[name], number)
    assert data["hasSequences"] == ("sequences.js" in files)
    assert len(found) == len(names)
    page = self_contained(html, beside=[f"#{name}" for name in names])
    return Atlas(page, columns, dict(zip(names, found, strict=True)), [names[i] for i in data["first"]])


def unpacked(script: bytes, name: int | str) -> Any:
    """What a file beside the page hands over under a name."""
    packed = script.decode("ascii").removeprefix(f'helixAtlasChunk({json.dumps(name)},"')
    return json.loads(gzip.decompress(base64.b64decode(packed.removesuffix('");\n'), validate=True)))


def dict_of_scripts(html: str) -> dict[str, str]:
    """Contents of the scripts that have an id."""
    return {attributes["id"]: text for attributes, text in Page(html).scripts if "id" in attributes}


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
