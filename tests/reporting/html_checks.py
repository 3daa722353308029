"""Pages as a browser sees them: what is text, what is markup, and what would be fetched or run."""

from __future__ import annotations

from collections.abc import Collection
from html.parser import HTMLParser

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
        if "style" in self.open:
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
    assert len(set(page.ids)) == len(page.ids), "an id comes twice"
    return page
