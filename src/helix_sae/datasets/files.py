"""Datasets that are one file: whole or not there, checked when read.

What kedro-datasets has for these formats writes into the file itself, so that a full disk or a killed process
leaves half of it under its name. Here the content is made first and published in one step; the SHA-256 of a
version's file stands beside it, is written before it, and is compared whenever the file is read.
"""

from __future__ import annotations

import base64
import io
import json
import re
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from html import unescape
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from kedro.io.core import Version, get_filepath_str, get_protocol_and_path
from kedro_datasets._typing import ImagePreview, JSONPreview, PlotlyPreview, TablePreview

from helix_sae.datasets.versioned import WholeVersionsDataset
from helix_sae.errors import StoreError
from helix_sae.storage import canonical_json, open_filesystem, read_file, sha256, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as Plotly

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")

CHECKSUM = "checksum.json"
_AGAIN = "Load another version (--load-versions), or run the pipeline that makes it again."


class FileDataset(WholeVersionsDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """One file; a subclass says what its bytes are.

    Parameters
    ----------
    filepath : str
        A local path or any fsspec URL.
    version : Version, optional
        Given by Kedro with ``versioned: true``.
    load_args, save_args : mapping, optional
        Of the function that reads or writes the format.
    credentials, fs_args : mapping, optional
        Of the fsspec file system.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.
    """

    def __init__(
        self,
        *,
        filepath: str,
        version: Version | None = None,
        load_args: Mapping[str, Any] | None = None,
        save_args: Mapping[str, Any] | None = None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fs, path = open_filesystem(filepath, {**(credentials or {}), **(fs_args or {})})
        self._protocol, _ = get_protocol_and_path(filepath, version)
        self._url = filepath
        self._load_args, self._save_args = dict(load_args or {}), dict(save_args or {})
        self.metadata = metadata
        super().__init__(
            filepath=PurePosixPath(path),
            version=version,
            exists_function=self._is_whole,
            glob_function=self._fs.glob,
        )

    @abstractmethod
    def _encode(self, data: Saved) -> bytes:
        """The file's content."""

    @abstractmethod
    def _decode(self, content: bytes) -> Loaded:
        """What a content stands for; a ValueError, KeyError or TypeError where it is none."""

    def save(self, data: Saved) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        StoreError
            If the disk is full, the folder is read-only, or the file system refuses otherwise.
        """
        path = get_filepath_str(self._get_save_path(), self._protocol)
        content = self._encode(data)
        if self._version is None:
            write_file(self._fs, path, content)
        else:
            checksum = _checksum_path(path)
            stated = {"file": self._filepath.name, "bytes": len(content), "sha256": sha256(content)}
            write_file(self._fs, checksum, canonical_json(stated))
            try:
                write_file(self._fs, path, content)
            except StoreError:
                with suppress(OSError):
                    self._fs.rm_file(checksum)
                raise
        self._invalidate_cache()

    def load(self) -> Loaded:
        """Read the file, after comparing it with its checksum.

        Raises
        ------
        StoreError
            If it is missing, has changed, or is not of the format.
        """
        path, content = self._content()
        try:
            return self._decode(content)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: cannot be read ({error}). {_AGAIN}") from error

    def _content(self) -> tuple[str, bytes]:
        path = get_filepath_str(self._get_load_path(), self._protocol)
        content = read_file(self._fs, path)
        if self._version is None:
            return path, content
        try:
            stated = json.loads(read_file(self._fs, _checksum_path(path)))
            size, digest = int(stated["bytes"]), str(stated["sha256"])
        except (StoreError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: its checksum is missing or damaged ({error}). {_AGAIN}") from error
        if len(content) != size:
            raise StoreError(f"{path}: {len(content)} bytes where the checksum says {size}. {_AGAIN}")
        if sha256(content) != digest:
            raise StoreError(f"{path}: its content has changed (its SHA-256 is another). {_AGAIN}")
        return path, content

    def _is_whole(self, path: str) -> bool:
        return bool(
            self._fs.isfile(path) and (self._version is None or self._fs.isfile(_checksum_path(path)))
        )

    def _exists(self) -> bool:
        return self._is_whole(get_filepath_str(self._get_load_path(), self._protocol))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._url, "protocol": self._protocol, "version": self._version}

    def _release(self) -> None:
        super()._release()
        self._invalidate_cache()

    def _invalidate_cache(self) -> None:
        self._fs.invalidate_cache(str(self._filepath))


def _checksum_path(path: str) -> str:
    return f"{path.rpartition('/')[0]}/{CHECKSUM}"


class TextDataset(FileDataset[str, str]):
    """A text in UTF-8.

    Examples
    --------
    ::

        run_summary_text:
          type: helix_sae.datasets.files.TextDataset
          filepath: data/08_reporting/run_summary.txt
          versioned: true
    """

    def _encode(self, data: str) -> bytes:
        return data.encode()

    def _decode(self, content: bytes) -> str:
        return content.decode()


class HtmlDataset(TextDataset):
    """A page, whose preview lists its headings with what stands under them.

    Examples
    --------
    ::

        run_report:
          type: helix_sae.datasets.files.HtmlDataset
          filepath: data/08_reporting/run_report.html
          versioned: true
    """

    def preview(self, nrows: int = 40) -> TablePreview:
        """Return the headings of the page, each with the first paragraph under it."""
        return headings_of(self.load(), nrows)


def headings_of(html: str, nrows: int) -> TablePreview:
    """Headings of a page, each with the first paragraph under it."""
    rows: list[list[str]] = []
    for part in re.split(r"<h[1-3][^>]*>", html)[1 : nrows + 1]:
        heading, _, body = part.partition("</h")
        first = re.search(r"<p[^>]*>(.*?)</p>", body, re.DOTALL)
        rows.append([_words(heading), _words(first[1]) if first else ""])
    return TablePreview({"index": list(range(len(rows))), "columns": ["heading", "says"], "data": rows})


def _words(html: str) -> str:
    """Text of a piece of HTML."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


class JsonDataset(FileDataset[Any, Any]):
    """A document; ``save_args`` are those of :func:`json.dumps`. NaN is refused.

    Examples
    --------
    ::

        run_summary:
          type: helix_sae.datasets.files.JsonDataset
          filepath: data/08_reporting/run_summary.json
          versioned: true
    """

    def _encode(self, data: Any) -> bytes:
        options: dict[str, Any] = {"indent": 1, "ensure_ascii": False, "allow_nan": False, **self._save_args}
        return json.dumps(data, **options).encode()

    def _decode(self, content: bytes) -> Any:
        return json.loads(content)

    def preview(self) -> JSONPreview:
        """Return the document."""
        return JSONPreview(json.dumps(self.load()))


class FigureDataset(FileDataset["Figure", bytes]):
    """A figure of Matplotlib as PNG, loaded as its bytes; ``save_args`` are those of ``Figure.savefig``.

    Examples
    --------
    ::

        "{figure}_figure":
          type: helix_sae.datasets.files.FigureDataset
          filepath: data/08_reporting/figures/{figure}.png
          versioned: true
    """

    def _encode(self, data: Figure) -> bytes:
        stream = io.BytesIO()
        options: dict[str, Any] = {"dpi": 150, "format": "png", **self._save_args}
        data.savefig(stream, **options)
        return stream.getvalue()

    def _decode(self, content: bytes) -> bytes:
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError("not a PNG")
        return content

    def preview(self) -> ImagePreview:
        """Return the picture in base64."""
        return ImagePreview(base64.b64encode(self.load()).decode())


class PlotlyDataset(FileDataset["Plotly", "Plotly"]):
    """A figure of Plotly as JSON.

    Examples
    --------
    ::

        "{figure}_plotly":
          type: helix_sae.datasets.files.PlotlyDataset
          filepath: data/08_reporting/figures/{figure}.json
          versioned: true
    """

    def _encode(self, data: Plotly) -> bytes:
        return cast("str", data.to_json(**self._save_args)).encode()

    def _decode(self, content: bytes) -> Plotly:
        import plotly.io  # noqa: PLC0415 - slow to import, and catalogs are read by every command

        return cast("Any", plotly.io).from_json(content.decode(), **self._load_args)

    def preview(self) -> PlotlyPreview:
        """Return the figure."""
        return PlotlyPreview(json.loads(self._content()[1]))
