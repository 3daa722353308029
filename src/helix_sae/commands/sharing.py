"""``helix-sae push`` and ``pull``: autoencoders to and from a repository of the Hugging Face hub.

A repository, or a folder in its place, holds what a version of ``sae_checkpoints`` holds (a folder a site in
SAELens's layout, ``sites.json``, ``manifest.json`` with the SHA-256 of every file) and a model card.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from helix_sae.errors import DataError, StoreError
from helix_sae.storage import replace_folder, working_folder

if TYPE_CHECKING:
    from helix_sae.sae import SparseAutoencoder

CARD = "README.md"
_SHARED = ("manifest.json", "sites.json", "*/cfg.json", "*/helix_sae.json", "*/feature_stability.csv")
_WEIGHTS = "*/sae_weights.safetensors"
_TRAINED = "06_models/sae_checkpoints"
LICENSE = "cc-by-nc-sa-4.0"
"""Of what is made from Helix-mRNA's weights; helix_mini and its autoencoders are this project's (MIT)."""


def newest_autoencoders(root: Path) -> Path:
    """Folder of the newest whole version of ``sae_checkpoints`` below a run's data.

    Raises
    ------
    DataError
        If there is none.
    """
    from kedro.io import Version  # noqa: PLC0415 - as below

    from helix_sae.datasets.saes import SaeCheckpointsDataset  # noqa: PLC0415 - every command imports this module
    from helix_sae.versions import artefact_path, newest_version  # noqa: PLC0415

    dataset = SaeCheckpointsDataset(filepath=str(root / _TRAINED), version=Version(None, None))
    version = newest_version(dataset)
    if version is None:
        raise DataError(
            f"{root / _TRAINED}: no trained autoencoders. Train them (kedro run --pipeline=sae_training), or"
            " name their folder with --from."
        )
    return Path(artefact_path(dataset, version))


def push(folder: Path, repository: str, *, public: bool = False, license_id: str = LICENSE) -> str:
    """Check the autoencoders of a folder, and write them with a model card to a repository or a folder.

    Parameters
    ----------
    folder : Path
        A version of ``sae_checkpoints``.
    repository : str
        ``user/name`` on the hub (``HF_ENDPOINT`` names another one, ``HF_TOKEN`` who you are), or a folder: a
        path that begins with ``/``, ``.`` or ``~``. The folder has to be empty or not there.
    public : bool
        Whether a repository that is made is open to everybody.
    license_id : str
        The hub's name of the licence that the card states.

    Returns
    -------
    str
        Where they are now.

    Raises
    ------
    StoreError
        If the autoencoders are damaged, or cannot be written there.
    """
    saes = load_folder(folder)
    local = local_folder(repository)
    if local is not None and local.exists() and any(local.iterdir()):
        raise StoreError(f"{local} is not empty: name a new folder.")
    if local is not None:
        local.parent.mkdir(parents=True, exist_ok=True)
    with working_folder(None if local is None else str(local)) as made:
        _copy(folder, made)
        (made / CARD).write_text(model_card(saes, repository, license_id), encoding="utf-8")
        if local is None:
            return _upload(made, repository, public)
        replace_folder(made, str(local))
    return str(local)


def pull(repository: str, out: Path, *, revision: str | None = None) -> dict[str, SparseAutoencoder]:
    """Fetch autoencoders into a new folder; every file is compared with its SHA-256.

    Raises
    ------
    StoreError
        If ``out`` is there, the repository cannot be reached, lacks something, or is damaged.
    """
    if out.exists():
        raise StoreError(f"{out} is there already: name a new folder with --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with working_folder(str(out)) as fetched:
        local = local_folder(repository)
        if local is None:
            _download(repository, revision, fetched)
        elif not (local / "manifest.json").exists():
            raise StoreError(
                f"{local}: no autoencoders (no manifest.json). Name what `helix-sae push` wrote."
            )
        else:
            _copy(local, fetched)
        saes = load_folder(fetched)
        replace_folder(fetched, str(out))
    return saes


def load_folder(folder: Path) -> dict[str, SparseAutoencoder]:
    """Autoencoders by site of a folder, checked against its manifest."""
    from helix_sae.datasets.saes import SaeCheckpointsDataset  # noqa: PLC0415 - brings torch

    return SaeCheckpointsDataset(filepath=str(folder)).load()


def local_folder(repository: str) -> Path | None:
    """The folder that is meant, or None for a repository of the hub."""
    return Path(repository).expanduser().absolute() if repository.startswith(("/", ".", "~")) else None


def model_card(saes: Mapping[str, SparseAutoencoder], repository: str, license_id: str) -> str:
    """What the hub shows of a repository: what these are, how good, how stable, and how to load them.

    Parameters
    ----------
    saes : mapping of site to SparseAutoencoder
        With their ``origin`` and ``stability``, where known.
    repository : str
        Its name, for the lines that load it.
    license_id : str
        The hub's name of a licence.
    """
    rows = "\n".join(_row(site, sae) for site, sae in saes.items())
    site, first = next(iter(saes.items()))
    model = str(first.origin.get("model", "unknown"))
    return f"""---
license: {license_id}
library_name: saelens
tags: [sparse-autoencoder, mrna, interpretability, helix-sae]
---

# Sparse autoencoders of an mRNA model

{len(saes)} sparse autoencoders ({first.config.architecture}) of the activations of an mRNA foundation model,
trained and certified by Helix SAE. The model whose activations they take has the fingerprint
`{model}`.

| site | features | certified | explained variance, held out | sequences trained on |
|---|---|---|---|---|
{rows}

A feature is *certified* where at least three quarters of the seeds (each with a start and an order of the
data of its own) have a feature with decoder cosine and held-out activation correlation of at least 0.7;
`feature_stability.csv` of each site has the figure of each feature. "unknown": no other seed was trained.

## How to load them

With Helix SAE, which also applies them to sequences:

```bash
helix-sae pull {repository} --out autoencoders
helix-sae apply my_utrs.csv --autoencoders autoencoders
```

With SAELens 6, one site at a time, from a downloaded copy:

```python
from sae_lens import SAE

sae = SAE.load_from_disk("autoencoders/{site}")
```

The weights take raw activations: no scaling is needed. Every file's SHA-256 stands in `manifest.json`, and
weights are safetensors: nothing is unpickled.
"""


def _row(site: str, sae: SparseAutoencoder) -> str:
    stability = sae.stability
    certified = "unknown"
    if stability is not None and "certified" in stability:
        certified = f"{int((stability['certified'] == 'yes').sum())}"
    explained = sae.origin.get("explained_variance")
    shown = f"{float(explained):.3f}" if isinstance(explained, int | float) else "unknown"
    n = sae.origin.get("n_sequences")
    sequences = f"{n:,}" if isinstance(n, int) else "unknown"
    return f"| `{site}` | {sae.d_sae} | {certified} | {shown} | {sequences} |"


def _copy(folder: Path, target: Path) -> None:
    """Copy what is shared of a folder, and nothing else."""
    for pattern in (*_SHARED, _WEIGHTS):
        for path in filter(Path.is_file, folder.glob(pattern)):
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _upload(folder: Path, repository: str, public: bool) -> str:
    from huggingface_hub import HfApi  # noqa: PLC0415 - only where somebody shares

    with _told(repository, "written to"):
        api = HfApi()
        api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Sparse autoencoders by Helix SAE"
        )
        return f"{api.endpoint}/{repository}"


def _download(repository: str, revision: str | None, target: Path) -> None:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    with _told(repository, "fetched from"):
        snapshot_download(
            repository, revision=revision, local_dir=target, allow_patterns=[*_SHARED, _WEIGHTS]
        )
    # What the library keeps for its own use is no part of the autoencoders.
    shutil.rmtree(target / ".cache", ignore_errors=True)


@contextmanager
def _told(repository: str, what: str) -> Iterator[None]:
    """Name the repository and a remedy in what the hub's library and the network raise."""
    try:
        yield
    except Exception as error:  # the hub raises a dozen kinds, from several libraries
        said = " ".join(str(error).split())[:300]
        raise StoreError(
            f"{repository}: autoencoders cannot be {what} it ({said}). Check the name (user/name), the"
            " network, and that HF_TOKEN may do this; a folder (./name) works without a network."
        ) from error
