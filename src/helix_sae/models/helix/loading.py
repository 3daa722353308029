"""Where a model's weights are, what they are, and how they are opened.

A :class:`HelixHandle` is light: it names a directory or a hub id and carries the fingerprint of the weights, and is what
travels through catalogs and to workers. :func:`open_model` opens it once in each process.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from torch import nn

from helix_sae.errors import ModelError
from helix_sae.models.helix.finetuned import HEAD_DESCRIPTION, HEAD_WEIGHTS
from helix_sae.models.helix.heads import DESCRIPTION_NAME, load_heads
from helix_sae.models.helix.heads import WEIGHTS_NAME as HEADS_NAME
from helix_sae.models.helix.mending import compile_parts, mend
from helix_sae.models.helix.model import HelixModel
from helix_sae.models.helix.upstream import import_helix_mrna, import_submodule, undisturbed_logging
from helix_sae.mrna.tokens import CodonMarkers

HUB_ID = "helical-ai/Helix-mRNA"
"""The released model."""

_WEIGHTS_NAME = "model.safetensors"
_INDEX_NAME = "model.safetensors.index.json"
_HASH_BLOCK = 1 << 20
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
_Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and time of change of each file of a checkpoint: what tells that it has to be hashed again."""

_OPENED: dict[tuple[str, str, str, bool], HelixModel] = {}
_CHECKED: dict[tuple[str, str], _Stamp] = {}
_OPENING = threading.Lock()


class HelixHandle(BaseModel):
    """A model by reference.

    Attributes
    ----------
    source : str
        The directory that the weights lie in.
    fingerprint : str
        SHA-256 over configuration, weights and heads.
    codon_markers : {"cds", "none"}
        How sequences are tokenized for it.
    device : str
        ``cpu``, ``cuda``, ``cuda:1`` ... or ``auto`` (a GPU when there is one).
    dtype : {"float32", "float64", "bfloat16"}
    compiled : bool
        Whether mixers and feed-forwards go through ``torch.compile``; on a CPU that needs a C++ compiler.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    fingerprint: str
    codon_markers: CodonMarkers = "cds"
    device: str = "auto"
    dtype: str = Field("float32", pattern="^(float32|float64|bfloat16)$")
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.source} ({self.fingerprint[:12]})"


def handle_for(
    source: str | Path,
    *,
    codon_markers: CodonMarkers = "cds",
    device: str = "auto",
    dtype: str = "float32",
    compiled: bool = False,
    revision: str | None = None,
) -> HelixHandle:
    """Make the handle of a checkpoint.

    Parameters
    ----------
    source : str or Path
        A directory in Hugging Face layout, or a hub id such as ``helical-ai/Helix-mRNA`` (fetched to the Hugging Face
        cache when it is not there yet).
    codon_markers, device, dtype, compiled
        See :class:`HelixHandle`.
    revision : str, optional
        Commit or tag of a hub id.

    Raises
    ------
    ModelError
        If there is no such checkpoint, or its weights are not in safetensors.
    """
    directory = _directory_of(str(source), revision)
    return HelixHandle(
        source=str(directory),
        fingerprint=fingerprint_of(directory),
        codon_markers=codon_markers,
        device=device,
        dtype=dtype,
        compiled=compiled,
    )


def open_model(handle: HelixHandle) -> HelixModel:
    """The model of a handle; opened on first use, the same object afterwards.

    Raises
    ------
    ModelError
        If the weights are no longer those of the handle, or cannot be loaded.
    """
    device = resolve_device(handle.device)
    key = (handle.fingerprint, device, handle.dtype, handle.compiled)
    with _OPENING:
        _check_unchanged(handle)
        if key not in _OPENED:
            opened = _open(Path(handle.source), handle.fingerprint, device, handle.dtype)
            if handle.compiled:
                compile_parts(opened.module)
            _OPENED[key] = opened
        return _OPENED[key]


def _check_unchanged(handle: HelixHandle) -> None:
    """Raise if the files of a handle are no longer what it was made from; they are hashed again when one was touched.

    Also where the model is open already: it may have been opened from another copy of what this handle's folder held.
    """
    directory = Path(handle.source)
    key, stamp = (handle.source, handle.fingerprint), _stamp(directory)
    if _CHECKED.get(key) == stamp:
        return
    found = fingerprint_of(directory)
    if found != handle.fingerprint:
        raise ModelError(
            f"The weights in {directory} have changed since the run began (fingerprint {found[:12]}, expected "
            f"{handle.fingerprint[:12]}); start the run again."
        )
    _CHECKED[key] = stamp


def load_helix(
    path_or_hub_id: str | Path = HUB_ID,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
) -> HelixModel:
    """Load a mended Helix-mRNA.

    Parameters
    ----------
    path_or_hub_id : str or Path
        A directory in Hugging Face layout, or a hub id.
    device, dtype : str
        See :class:`HelixHandle`.
    revision : str, optional
        Commit or tag of a hub id.

    Raises
    ------
    ModelError
        If it cannot be found or loaded.
    """
    return open_model(handle_for(path_or_hub_id, device=device, dtype=dtype, revision=revision))


def from_helical(helix_mrna: Any) -> HelixModel:
    """Wrap (and mend, in place) a helical ``HelixmRNA`` or ``HelixmRNAFineTuningModel`` that the caller has made.

    Raises
    ------
    ModelError
        If the object is not one.
    """
    module = getattr(helix_mrna, "model", None)
    if module is None or not hasattr(module, "layers") or not hasattr(module, "embeddings"):
        raise ModelError(
            f"{type(helix_mrna).__name__} is not a helical HelixmRNA model: it has no .model with embeddings and layers."
        )
    mend(module)
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return HelixModel(module.eval(), fingerprint=digest.hexdigest(), heads=None)


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` when there is a GPU, else ``cpu``.

    Raises
    ------
    ModelError
        If a GPU is asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(
            f"Device {device!r} was asked for and this machine has no usable GPU; set device: auto."
        )
    return device


def fingerprint_of(directory: Path) -> str:
    """SHA-256 over the files that decide what a checkpoint computes.

    Raises
    ------
    ModelError
        If a file is missing, or the weights are not in safetensors.
    """
    digest = hashlib.sha256()
    for path in _files_that_count(directory):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(_HASH_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _stamp(directory: Path) -> _Stamp:
    """What changes when one of the files that count is written anew."""
    found = [(path, path.stat()) for path in _files_that_count(directory)]
    return tuple((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found)


def _files_that_count(directory: Path) -> list[Path]:
    """Configuration, weights and heads of a checkpoint."""
    config = directory / "config.json"
    if not config.is_file():
        raise ModelError(f"{directory} is not a checkpoint: it has no config.json.")
    read_outs = (HEADS_NAME, DESCRIPTION_NAME, HEAD_WEIGHTS, HEAD_DESCRIPTION)
    heads = [directory / name for name in read_outs if (directory / name).exists()]
    return [config, *_weight_files(directory), *heads]


def _weight_files(directory: Path) -> list[Path]:
    """The files of the weights: one, or the index of several and what it names."""
    index = directory / _INDEX_NAME
    if (single := directory / _WEIGHTS_NAME).is_file():
        return [single]
    if not index.is_file():
        raise ModelError(
            f"{directory} has no {_WEIGHTS_NAME} (nor {_INDEX_NAME}). Weights in other formats can run code when they "
            "are loaded and are not read; convert the checkpoint with save_pretrained(..., safe_serialization=True)."
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read ({error!r}); fetch the checkpoint again.") from error
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise ModelError(
            f"{index} names {', '.join(missing)}, which {directory} lacks; fetch the checkpoint again."
        )
    return [index, *(directory / name for name in names)]


def _directory_of(source: str, revision: str | None) -> Path:
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_absolute() or source.count("/") != 1 or source.startswith("."):
        raise ModelError(f"There is no checkpoint directory {source}.")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import, and only for hub ids

    try:
        patterns = ["*.json", "*.safetensors"]
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub raises a dozen kinds, from several libraries
        raise ModelError(
            f"{source!r} is neither a directory here nor a model that could be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {error}). Give the path of a downloaded checkpoint."
        ) from error


def _open(directory: Path, fingerprint: str, device: str, dtype: str) -> HelixModel:
    helix = import_helix_mrna()
    # Loaded on the CPU in float32 whatever the device: upstream would choose bfloat16 with flash attention.
    configuration = helix.HelixmRNAConfig(device="cpu")
    configuration.config["model_name"] = str(directory)
    try:
        with undisturbed_logging():
            module = helix.HelixmRNA(configurer=configuration).model
        _check_complete(module, directory)
    except ModelError:
        raise
    except Exception as error:  # upstream, transformers and safetensors raise a dozen kinds
        raise ModelError(
            f"The checkpoint in {directory} cannot be loaded ({type(error).__name__}: {error}); fetch it again, or write "
            "it again with helical's save_pretrained."
        ) from error
    mend(module)
    module = module.to(device=device, dtype=_DTYPES[dtype]).eval().requires_grad_(False)
    if dtype == "float64":
        for layer in module.layers:
            layer.residual_in_fp32 = False  # which would round the residual stream to float32 at every mixer
    heads = load_heads(directory)
    return HelixModel(
        module, fingerprint=fingerprint, heads=None if heads is None else heads.to(device=device)
    )


def _check_complete(module: nn.Module, directory: Path) -> None:
    """Raise where upstream would quietly go on with random weights: for a tensor that no file has."""
    stored: set[str] = set()
    for path in _weight_files(directory):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                # Names as upstream reads them: an older one for the embedding, and with or without the prefix.
                stored |= {
                    name.removeprefix("backbone.").replace("embedding.", "embeddings.")
                    for name in file.keys()  # noqa: SIM118 - a handle, not a mapping
                }
    missing = sorted(set(module.state_dict()) - stored)
    if missing:
        raise ModelError(
            f"The weights in {directory} lack {len(missing)} of the network's tensors, the first of them {missing[0]}; "
            "config.json belongs to another network, or the file is damaged. Fetch the checkpoint again."
        )


def upstream_tokenizer() -> Any:
    """helical's ``CharTokenizer``."""
    return import_submodule("helix_mrna_tokenizer").CharTokenizer
