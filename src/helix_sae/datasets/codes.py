"""Sequence-level codes by site, as AnnData files that every single-cell tool reads."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from kedro_datasets._typing import JSONPreview
from scipy import sparse

from helix_sae.datasets.directory import DirectoryDataset
from helix_sae.datasets.structures import check_sparse
from helix_sae.errors import StoreError
from helix_sae.storage import canonical_json, inside

if TYPE_CHECKING:
    from anndata import AnnData

_SITES = "sites.json"
_SITE_NAME = re.compile(r"\w[\w.\-]*")


class SequenceCodesDataset(DirectoryDataset["Mapping[str, AnnData]", "dict[str, AnnData]"]):
    """One AnnData a site, ``<site>.h5ad``.

    Parameters are those of :class:`~helix_sae.datasets.directory.DirectoryDataset`.

    Examples
    --------
    ::

        sequence_codes:
          type: helix_sae.datasets.codes.SequenceCodesDataset
          filepath: data/07_model_output/sequence_codes
          versioned: true
    """

    format_name: ClassVar[str] = "helix-sae-sequence-codes/1"

    def _write(self, data: Mapping[str, AnnData], folder: Path) -> None:
        for site, codes in data.items():
            if not _SITE_NAME.fullmatch(site):
                raise StoreError(f"Site {site!r} cannot be the name of a file.")
            (folder / f"{site}.h5ad").write_bytes(_h5ad(codes))
        (folder / _SITES).write_bytes(canonical_json(list(data)))

    def _read(self, folder: Path) -> dict[str, AnnData]:
        from anndata import read_h5ad  # noqa: PLC0415 - slow to import, and catalogs are read by every command

        sites = cast("list[str]", json.loads((folder / _SITES).read_bytes()))
        files = {site: inside(str(folder), f"{site}.h5ad", f"{folder}/{_SITES}") for site in sites}
        for path in files.values():
            refuse_what_is_outside(path)
        codes = {site: cast("Any", read_h5ad)(path) for site, path in files.items()}
        for site, data in codes.items():
            for name, matrix in {"X": data.X, **data.layers, **data.obsm, **data.varm}.items():
                if sparse.issparse(matrix):
                    check_sparse(matrix, f"{folder}/{site}.h5ad: {name}")
        return codes

    def preview(self) -> JSONPreview:
        """Return the shape and the names of the parts of each site's AnnData."""
        return JSONPreview(json.dumps({site: str(codes) for site, codes in self.load().items()}))


_MOST_COMPRESSED = 1100
"""gzip makes data at most some 1,030 times smaller."""


def refuse_what_is_outside(path: str) -> None:
    """Make sure that an HDF5 file has all its data in itself, and not more than it can hold.

    Raises
    ------
    StoreError
        If a part of it is a link to another file, lies in one, or states a size that no file of this size
        has.
    """
    import h5py  # noqa: PLC0415 - slow to import, and catalogs are read by every command

    def look_through(group: Any) -> int:
        total = 0
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise _tampered(path, f"{group.name}/{name} is a link")
            part = group[name]
            if isinstance(part, h5py.Group):
                total += look_through(part)
            elif part.external or part.is_virtual:
                raise _tampered(path, f"{group.name}/{name} lies in another file")
            else:
                total += int(part.nbytes)
        return total

    try:
        with h5py.File(path, "r") as file:
            stated = look_through(file)
    except (OSError, RuntimeError, RecursionError) as error:
        raise StoreError(
            f"{path}: not a file of HDF5 that can be read ({error}); load another version."
        ) from error
    if stated > _MOST_COMPRESSED * os.path.getsize(path):
        raise _tampered(path, f"it states {stated:,} bytes of data")


def _tampered(path: str, what: str) -> StoreError:
    return StoreError(
        f"{path}: {what}; no such file was written here. Load another version, or make it again."
    )


def _h5ad(codes: AnnData) -> bytes:
    """The content of a file; made in memory, for HDF5 crashes the process where the disk is full as it closes a file."""
    import h5py  # noqa: PLC0415 - slow to import, and catalogs are read by every command
    from anndata.io import write_elem  # noqa: PLC0415

    stream = io.BytesIO()
    with cast("Any", h5py).File(stream, "w") as file:
        cast("Any", write_elem)(file, "/", codes, dataset_kwargs={"compression": "gzip"})
    return stream.getvalue()
