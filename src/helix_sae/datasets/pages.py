"""Pages with the files that they load, as a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kedro_datasets._typing import TablePreview

from helix_sae.datasets.directory import DirectoryDataset, files_in
from helix_sae.datasets.files import headings_of


class PagesDataset(DirectoryDataset[Mapping[str, bytes], dict[str, bytes]]):
    """Files by their names below the folder; ``index.html`` among them is the page to open.

    Examples
    --------
    ::

        feature_atlas:
          type: helix_sae.datasets.pages.PagesDataset
          filepath: data/08_reporting/feature_atlas
          versioned: true
    """

    format_name = "pages"

    def _write(self, data: Mapping[str, bytes], folder: Path) -> None:
        for name, content in data.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _read(self, folder: Path) -> dict[str, bytes]:
        return {name: (folder / name).read_bytes() for name in files_in(folder)}

    def preview(self, nrows: int = 40) -> TablePreview:
        """Return the headings of the page, each with what stands under it."""
        return headings_of(self.load()["index.html"].decode(), nrows)
