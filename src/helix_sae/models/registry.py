"""From a name or a folder to a model.

A :class:`ModelHandle` is light: it names a folder of weights, says what kind of model they are of and carries
their fingerprint, and is what travels through catalogs and to workers. :func:`open_model` opens it once in
each process.

A kind is one of :data:`KINDS`, recognised by its ``config.json``, or a class of one's own, named
``package.module:Class``: any :class:`~helix_sae.models.contract.Model` that Python can import here and on the
workers.
"""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field

from helix_sae.errors import ConfigurationError, ModelError
from helix_sae.models.checking import check_model
from helix_sae.models.checkpoints import (
    CONFIG_NAME,
    Stamp,
    configuration,
    directory_of,
    fingerprint_of,
    stamp,
)
from helix_sae.models.contract import Model
from helix_sae.mrna.tokens import CodonMarkers


class Kind(NamedTuple):
    """A kind of model that comes with the package.

    Attributes
    ----------
    path : str
        ``module:Class``.
    architectures : tuple of str
        What ``config.json`` calls it.
    """

    path: str
    architectures: tuple[str, ...]


KINDS = {
    "helix_mrna": Kind("helix_sae.models.helix.model:HelixModel", ("HelixmRNAPretrainedModel",)),
    "mamba2_mrna": Kind("helix_sae.models.mamba2.model:Mamba2Model", ("Mamba2Model", "Mamba2ForCausalLM")),
}
"""By name. The first is what a folder is taken for whose ``config.json`` names none of them."""

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}

_OPENED: dict[tuple[str, str, str, str, bool], Model] = {}
_CHECKED: dict[tuple[str, str], Stamp] = {}
_OPENING = threading.Lock()


class ModelHandle(BaseModel):
    """A model by reference.

    Attributes
    ----------
    source : str
        The directory that the weights lie in.
    kind : str
        Of :data:`KINDS`, or ``package.module:Class``.
    fingerprint : str
        SHA-256 over the files that decide what the model computes.
    codon_markers : {"cds", "none"}
        How sequences are tokenized for it.
    device : str
        ``cpu``, ``cuda``, ``cuda:1`` ... or ``auto`` (a GPU when there is one).
    dtype : {"float32", "float64", "bfloat16"}
    compiled : bool
        Whether the model goes through ``torch.compile``; on a CPU that needs a C++ compiler.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    kind: str
    fingerprint: str
    codon_markers: CodonMarkers
    device: str = "auto"
    dtype: str = Field("float32", pattern="^(float32|float64|bfloat16)$")
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.source} ({self.fingerprint[:12]})"


def handle_for(
    source: str | Path,
    *,
    kind: str | None = None,
    codon_markers: CodonMarkers | None = None,
    device: str = "auto",
    dtype: str = "float32",
    compiled: bool = False,
    revision: str | None = None,
) -> ModelHandle:
    """Make the handle of a model.

    Parameters
    ----------
    source : str or Path
        A folder of weights, or a hub id such as ``helical-ai/Helix-mRNA`` (fetched to the Hugging Face cache
        when it is not there yet).
    kind : str, optional
        Of :data:`KINDS`, or ``package.module:Class``; what ``config.json`` says when absent.
    codon_markers : {"cds", "none"}, optional
        What is usual for the kind when absent.
    device, dtype, compiled
        See :class:`ModelHandle`.
    revision : str, optional
        Commit or tag of a hub id.

    Raises
    ------
    ModelError
        If there is no such folder, or its weights are not in safetensors.
    ConfigurationError
        If there is no such kind, or it knows no codon markers and they are asked for.
    """
    directory = directory_of(str(source), revision)
    kind = kind or _kind_of(directory)
    model_class = model_class_of(kind)
    if codon_markers is not None and codon_markers not in model_class.markers:
        raise ConfigurationError(
            f"A model of kind {kind} reads sequences with codon_markers: {' or '.join(model_class.markers)},"
            f" not {codon_markers}; set codon_markers of the model in the catalog."
        )
    return ModelHandle(
        source=str(directory),
        kind=kind,
        fingerprint=fingerprint_of(model_class.files(directory)),
        codon_markers=codon_markers or model_class.markers[0],
        device=device,
        dtype=dtype,
        compiled=compiled,
    )


def open_model(handle: ModelHandle) -> Model:
    """The model of a handle; opened on first use, the same object afterwards.

    Raises
    ------
    ModelError
        If the weights are no longer those of the handle, cannot be loaded, or the model is not what is asked
        of every model (:mod:`helix_sae.models.checking`).
    """
    device = resolve_device(handle.device)
    key = (handle.kind, handle.fingerprint, device, handle.dtype, handle.compiled)
    with _OPENING:
        model_class = model_class_of(handle.kind)
        _check_unchanged(handle, model_class)
        if key not in _OPENED:
            model = model_class.load(Path(handle.source))
            model.fingerprint = handle.fingerprint
            model.place(device, _DTYPES[handle.dtype])
            check_model(model)
            if handle.compiled:
                model.compile()
            _OPENED[key] = model
        return _OPENED[key]


def load_model(
    source: str | Path, *, kind: str | None = None, device: str = "auto", dtype: str = "float32"
) -> Model:
    """Open a model by its folder or hub id: :func:`open_model` of :func:`handle_for`.

    Raises
    ------
    ModelError
        If it cannot be found or loaded.
    """
    return open_model(handle_for(source, kind=kind, device=device, dtype=dtype))


def adopt(made: object) -> Model:
    """The model inside an object that its own library has made, mended in place where that is needed.

    Parameters
    ----------
    made : object
        A :class:`Model`, which is given back, or what a kind of model recognises: a helical ``HelixmRNA`` ...

    Raises
    ------
    ModelError
        If no kind does.
    """
    if isinstance(made, Model):
        return made
    for kind in KINDS:
        if (found := model_class_of(kind).adopt(made)) is not None:
            return found
    raise ModelError(
        f"{type(made).__name__} is no model of a known kind ({', '.join(KINDS)}): give helical's own object,"
        " or a helix_sae.models.Model."
    )


def model_class_of(kind: str) -> type[Model]:
    """The class of a kind.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    path = KINDS[kind].path if kind in KINDS else kind
    module, _, name = path.partition(":")
    known = f"the kinds are {', '.join(KINDS)}, or package.module:Class for one of your own"
    if not name:
        raise ConfigurationError(f"There is no kind of model {kind!r}; {known}.")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"The kind of model {kind!r} cannot be imported ({error}); {known}."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ConfigurationError(
            f"{kind} is no helix_sae.models.Model; make it a class that inherits from it."
        )
    return found


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


def _kind_of(directory: Path) -> str:
    """What ``config.json`` says of a folder."""
    if not (directory / CONFIG_NAME).is_file():
        return next(iter(KINDS))  # whose loader says what is missing
    named = configuration(directory).get("architectures") or []
    known = [name for name, kind in KINDS.items() if set(kind.architectures) & set(named)]
    return known[0] if known else next(iter(KINDS))


def _check_unchanged(handle: ModelHandle, model_class: type[Model]) -> None:
    """Raise if the files of a handle are no longer what it was made from; they are hashed again when one was touched.

    Also where the model is open already: it may have been opened from another copy of what this handle's
    folder held.
    """
    files = model_class.files(Path(handle.source))
    key, seen = (handle.source, handle.fingerprint), stamp(files)
    if _CHECKED.get(key) == seen:
        return
    found = fingerprint_of(files)
    if found != handle.fingerprint:
        raise ModelError(
            f"The weights in {handle.source} have changed since the run began (fingerprint {found[:12]},"
            f" expected {handle.fingerprint[:12]}); start the run again."
        )
    _CHECKED[key] = seen
