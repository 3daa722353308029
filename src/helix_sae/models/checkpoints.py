"""Folders of weights: where they are, which files count, whether they are whole. Nothing that is read here can run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from helix_sae.errors import ModelError

CONFIG_NAME = "config.json"

_WEIGHTS_NAME = "model.safetensors"
_INDEX_NAME = "model.safetensors.index.json"
_HASH_BLOCK = 1 << 20
_LARGEST_CONFIG = 16 * 2**20
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers")
_EXACT_KEYS = ("hidden_size", "vocab_size", "d_model")
_SIZE_WORDS = ("size", "dim", "heads", "expand", "groups", "rank", "kernel")
_ROOM = 8
"""Sizes that no tensor has as it is (chunks, what is cut in two) are at most so many times the largest that one has."""
_HARMLESS = 4096
"""A size that no tensor needs, for a part that the network does not have, may be up to this: it takes no memory to speak of."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and time of change of each file of a checkpoint: what tells that it has to be hashed again."""


def directory_of(source: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint: itself, or that of a hub id in the Hugging Face cache, fetched when it is not there yet.

    Raises
    ------
    ModelError
        If there is no such folder and it cannot be fetched.
    """
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
            f"{source!r} is neither a directory here nor a model that could be fetched from the Hugging "
            f"Face hub ({type(error).__name__}: {error}). Give the path of a downloaded checkpoint."
        ) from error


def configuration(directory: Path) -> dict[str, Any]:
    """What ``config.json`` says.

    Raises
    ------
    ModelError
        If it is not there or cannot be read.
    """
    path = directory / CONFIG_NAME
    if not path.is_file():
        raise ModelError(f"{directory} is not a checkpoint: it has no {CONFIG_NAME}.")
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error}); fetch the checkpoint again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no mapping; fetch the checkpoint again.")
    return found


def files_of(directory: Path) -> list[Path]:
    """All JSON and safetensors files of a folder, by name.

    Raises
    ------
    ModelError
        If no weights are among them.
    """
    found = sorted(path for path in directory.iterdir() if path.suffix in (".json", ".safetensors"))
    if not any(path.suffix == ".safetensors" for path in found):
        raise _no_weights(directory, "safetensors file")
    return found


def weight_files(directory: Path) -> list[Path]:
    """The files of the weights in Hugging Face's layout: one, or the index of several and what it names.

    Raises
    ------
    ModelError
        If there are none in safetensors, or some that the index names are missing.
    """
    index = directory / _INDEX_NAME
    if (single := directory / _WEIGHTS_NAME).is_file():
        return [single]
    if not index.is_file():
        raise _no_weights(directory, f"{_WEIGHTS_NAME} (nor {_INDEX_NAME})")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        for name in names:
            if Path(name).name != name:
                raise ValueError(f"it names {name!r}, which is not inside the folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read ({error!r}); fetch the checkpoint again.") from error
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise ModelError(
            f"{index} names {', '.join(missing)}, which {directory} lacks; fetch the checkpoint again."
        )
    return [index, *(directory / name for name in names)]


def check_declared(directory: Path) -> None:
    """Compare the sizes that ``config.json`` states with the stored tensors, before a network of these sizes is built.

    Raises
    ------
    ModelError
        If it states more layers, or a larger width, than the weights have; or weights that are quantized.
    """
    stated = configuration(directory)
    if stated.get("quantization_config") is not None:
        raise ModelError(
            f"{directory / CONFIG_NAME} has a quantization_config; quantized weights are not read. Give the "
            "checkpoint in float32 or bfloat16."
        )
    shapes = _stored_shapes(directory)
    numbers = [int(part) for name in shapes for part in name.split(".") if part.isdecimal()]
    n_layers, largest = max(numbers, default=-1) + 1, max((n for s in shapes.values() for n in s), default=0)
    for key, value in stated.items():
        if key in _LAYER_KEYS:
            limit = n_layers
        elif key in _EXACT_KEYS:
            limit = largest
        elif any(word in key.split("_") for word in _SIZE_WORDS):
            limit = max(_ROOM * largest, _HARMLESS)
        else:
            continue
        if isinstance(value, int) and value > limit:
            raise ModelError(
                f"{directory / CONFIG_NAME} states {key}: {value:,}, but the weights have room for no more "
                f"than {limit:,}: the files do not belong together. Fetch the checkpoint again."
            )


def _stored_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each stored tensor, from the headers of the files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(directory):
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt") as file:
                    shapes |= {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path} cannot be read ({error}); fetch the checkpoint again.") from error
    return shapes


def check_complete(directory: Path, wanted: Sequence[str]) -> None:
    """Raise where upstream would quietly go on with random weights: for a tensor that no file has.

    Parameters
    ----------
    directory : Path
    wanted : sequence of str
        Names of the network's tensors.

    Raises
    ------
    ModelError
        Naming the first that is missing.
    """
    stored: set[str] = set()
    for path in weight_files(directory):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                # Names as upstream reads them: an older one for the embedding, and with or without the
                # prefix.
                stored |= {
                    name.removeprefix("backbone.").replace("embedding.", "embeddings.")
                    for name in file.keys()  # noqa: SIM118 - a handle, not a mapping
                }
    missing = sorted(set(wanted) - stored)
    if missing:
        raise ModelError(
            f"The weights in {directory} lack {len(missing)} of the network's tensors, the first of them "
            f"{missing[0]}; config.json belongs to another network, or the file is damaged. Fetch the "
            "checkpoint again."
        )


def fingerprint_of(files: Sequence[Path]) -> str:
    """SHA-256 over names and contents of files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(_HASH_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def fingerprint_of_weights(module: nn.Module) -> str:
    """SHA-256 over the names and values of a network's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def stamp(files: Sequence[Path]) -> Stamp:
    """What changes when one of some files is written anew."""
    found = [(path, path.stat()) for path in files]
    return tuple((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found)


def _no_weights(directory: Path, what: str) -> ModelError:
    return ModelError(
        f"{directory} has no {what}. Weights in other formats can run code when they are loaded and are not "
        "read; convert the checkpoint with save_pretrained(..., safe_serialization=True)."
    )
