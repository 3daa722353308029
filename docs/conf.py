"""How Sphinx builds the site: ``make docs``. Nothing is fetched; a warning is an error."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "src")]

import made_pages  # noqa: E402

from helix_sae import __version__  # noqa: E402

project = "Helix SAE"
author = "Helix SAE authors"
project_copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "Thumbs.db"]
# Pages of the repository are included, with links of their own (README, CHANGELOG, CONTRIBUTING, benchmarks/RESULTS.md); words of
# types in docstrings, such as `sequence`, are no references.
suppress_warnings = ["myst.xref_missing", "ref.python"]

html_theme = "furo"
html_title = f"Helix SAE {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False

napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
# Attributes as a list: each is described once, in the docstring of its class.
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "show-inheritance": True}


def setup(app: Sphinx) -> None:
    """Write the pages that are made from the code before Sphinx looks for pages, and read docstrings as they are meant."""
    app.connect("builder-inited", lambda _: made_pages.write(DOCS / "made"))
    app.connect("autodoc-process-docstring", keep_absolute_values)
    app.connect("autodoc-skip-member", leave_out_what_others_wrote)
    logging.getLogger("helix_sae").setLevel(logging.WARNING)


def keep_absolute_values(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """``|x|`` is an absolute value in these docstrings; reStructuredText would substitute it."""
    literal = False
    for number, line in enumerate(lines):
        if literal and line and not line.startswith(" "):
            literal = False
        if not literal:
            parts = line.split("``")
            lines[number] = "``".join(p if i % 2 else p.replace("|", "\\|") for i, p in enumerate(parts))
        literal = literal or line.endswith("::")


def leave_out_what_others_wrote(
    _app: Sphinx, _what: str, _name: str, member: Any, skip: bool, _options: Any
) -> bool | None:
    """Methods that matplotlib writes into subclasses are its own, and so is their markup."""
    return True if str(getattr(member, "__module__", "")).startswith("matplotlib") else skip or None
