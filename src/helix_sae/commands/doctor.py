"""``helix-sae doctor``: whether this machine and this installation are fit for a run."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

_PACKAGES = ("helix_sae", "helical", "torch", "transformers", "kedro", "numpy", "pandas", "scipy", "anndata")
_EXTRAS = {
    "ViennaRNA": ("RNA", "folding energies (extra structure)"),
    "Dask": ("distributed", "work on a cluster (extra cluster)"),
    "dask-jobqueue": ("dask_jobqueue", "workers under SLURM (extra cluster)"),
    "s3fs": ("s3fs", "object storage (extra cluster)"),
}
_ROOM = 5e9
"""Bytes free that a run of a few thousand transcripts asks for."""
_TOLERANCE = 1e-4


class Finding(NamedTuple):
    """One line of the examination; ``well`` is None where nothing is right or wrong about it."""

    what: str
    found: str
    well: bool | None = None


def examine(model: str | Path, folder: str | Path = ".") -> Iterator[Finding]:
    """Look at versions, device, disk, extras, and whether a model computes what it should.

    Parameters
    ----------
    model : str or Path
        Folder of weights or hub id.
    folder : str or Path
        Where a run would write.
    """
    yield Finding("Python", f"{platform.python_version()} on {platform.machine()}")
    for name in _PACKAGES:
        try:
            yield Finding(name, metadata.version(name), True)
        except metadata.PackageNotFoundError:
            yield Finding(name, "not installed", False)
    yield from _machine(Path(folder))
    for name, (module, use) in _EXTRAS.items():
        there = util.find_spec(module) is not None
        yield Finding(name, f"{'there' if there else 'not installed'}: {use}")
    yield from _model(str(model))


def _machine(folder: Path) -> Iterator[Finding]:
    import torch  # noqa: PLC0415 - slow to import

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    yield Finding(
        "Device", gpu or f"no GPU; {torch.get_num_threads()} threads on {os.cpu_count()} processors"
    )
    free = shutil.disk_usage(folder).free
    yield Finding("Disk", f"{free / 1e9:,.0f} GB free at {folder.resolve()}", free > _ROOM)


def _model(source: str) -> Iterator[Finding]:
    """Three properties that a defect of a model breaks, seen from outside."""
    import torch  # noqa: PLC0415

    from helix_sae.errors import HelixSaeError  # noqa: PLC0415
    from helix_sae.models.registry import handle_for, open_model  # noqa: PLC0415
    from helix_sae.mrna.tokens import tokenize  # noqa: PLC0415

    try:
        handle = handle_for(source, device="cpu")
        model = open_model(handle)
    except (HelixSaeError, OSError) as error:
        yield Finding("Model", str(error), False)
        return
    yield Finding("Model", f"{handle}, {len(model.default_sites)} sites", True)
    letters = "GCAUUGACCAUGGCUAACGU" * 16
    tokens = [tokenize(letters), tokenize("U" + letters[1:])]
    ids, _ = model.tensors(tokens)
    with torch.no_grad():
        hidden = model.hidden(ids)
        alone = model.hidden(ids[:1])
        short, _ = model.tensors([tokenize(letters[:40]), tokens[0]])
        padded = model.hidden(short)[0, :40]
        unpadded = model.hidden(short[:1, :40])[0]
    far = letters.index("A", len(letters) - 20)
    context = float((hidden[0, far] - hidden[1, far]).abs().max())
    size = float(hidden.abs().max())
    yield Finding(
        "Context", "the first letter reaches the last ones" if context else "lost on the way", context > 0
    )
    for what, a, b in (("Batches", hidden[:1], alone), ("Padding", padded, unpadded)):
        apart = float((a - b).abs().max()) / size
        words = "same as single sequences" if what == "Batches" else "leaks into no sequence"
        yield Finding(
            what,
            words if apart < _TOLERANCE else f"differs by {apart:.1e} of the largest",
            apart < _TOLERANCE,
        )
