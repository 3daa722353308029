"""Models: the one that a run interprets, as a light handle; and a checkpoint that a run trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io.core import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from helix_sae.mrna.tokens import CodonMarkers
from helix_sae.storage import replace_folder, storage_errors, working_folder

if TYPE_CHECKING:
    from helix_sae.models.contract import Model
    from helix_sae.models.registry import ModelHandle


class ModelDataset(AbstractDataset[None, "ModelHandle"]):
    """Reference to a model; it is opened in each process on first use.

    Parameters
    ----------
    filepath : str, optional
        A local folder of weights.
    hub_id : str, optional
        Instead of a folder: a name on the Hugging Face hub, such as ``helical-ai/Helix-mRNA``.
    kind : str, optional
        Which model it is: one of :data:`helix_sae.models.registry.KINDS`, or ``package.module:Class`` for one
        of your own; what the folder's ``config.json`` says when absent.
    codon_markers : {"cds", "none"}, optional
        Whether an ``E`` stands before each codon of a coding region; what is usual for the model when absent.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``... or ``auto``.
    dtype : {"float32", "float64", "bfloat16"}
    compiled : bool
        Whether the model goes through ``torch.compile``.
    revision : str, optional
        Commit or tag of a hub id.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.

    Examples
    --------
    ::

        model:
          type: helix_sae.datasets.model.ModelDataset
          filepath: data/06_models/helix_mini
          device: auto
    """

    def __init__(
        self,
        *,
        filepath: str | None = None,
        hub_id: str | None = None,
        kind: str | None = None,
        codon_markers: CodonMarkers | None = None,
        device: str = "auto",
        dtype: str = "float32",
        compiled: bool = False,
        revision: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "kind": kind,
            "codon_markers": codon_markers,
            "device": device,
            "dtype": dtype,
            "compiled": compiled,
            "revision": revision,
        }
        if (filepath is None) == (hub_id is None):
            raise DatasetError("A model is named either by its `filepath` (a directory) or by its `hub_id`.")
        self._filepath = None if filepath is None else Path(filepath)
        self._source = str(filepath or hub_id)
        self._handle: ModelHandle | None = None
        self.metadata = metadata

    def load(self) -> ModelHandle:
        """Make the handle; its fingerprint is computed once."""
        from helix_sae.models.registry import handle_for  # noqa: PLC0415 - slow to import; all commands read catalogs

        if self._handle is None:
            self._handle = handle_for(self._source, **self._arguments)
        return self._handle

    def save(self, data: None) -> None:
        """Refuse: a model is made by the pretraining pipeline, under its own name."""
        raise DatasetError(f"{self._source}: a handle cannot be saved; see CheckpointDataset.")

    def identify(self) -> dict[str, Any]:
        """What the provenance of everything made with this model says of it."""
        handle = self.load()
        return {
            "url": self._source,
            "fingerprint": handle.fingerprint,
            "codon_markers": handle.codon_markers,
            "dtype": handle.dtype,
        }

    def _exists(self) -> bool:
        return self._filepath is None or (self._filepath / "config.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"source": self._source, **self._arguments}

    def _release(self) -> None:
        self._handle = None

    def preview(self) -> JSONPreview:
        """Return the handle."""
        return JSONPreview(json.dumps(self.load().model_dump(mode="json")))


class CheckpointDataset(AbstractDataset["Model", "Model"]):
    """A model that a run trains, as a local folder from which :class:`ModelDataset` takes it.

    Parameters
    ----------
    filepath : str
        A local directory. It is replaced as a whole.
    kind : str, optional
        As of :class:`ModelDataset`.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.

    Examples
    --------
    ::

        helix_mini:
          type: helix_sae.datasets.model.CheckpointDataset
          filepath: data/06_models/helix_mini
    """

    def __init__(
        self, *, filepath: str, kind: str | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._filepath = Path(filepath)
        self._kind = kind
        self.metadata = metadata

    def load(self) -> Model:
        """Open it on the CPU."""
        from helix_sae.models.registry import handle_for, open_model  # noqa: PLC0415

        return open_model(handle_for(self._filepath, kind=self._kind, device="cpu"))

    def save(self, data: Model) -> None:
        """Write the checkpoint, whole or not at all."""
        target = str(self._filepath)
        with storage_errors(target, "written"), working_folder(target) as working:
            data.save(working)
            replace_folder(working, target)

    def identify(self) -> dict[str, Any]:
        """What the provenance of everything made with this model says of it."""
        from helix_sae.models.registry import handle_for  # noqa: PLC0415

        return {
            "url": str(self._filepath),
            "fingerprint": handle_for(self._filepath, kind=self._kind).fingerprint,
        }

    def _exists(self) -> bool:
        return (self._filepath / "config.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix(), "kind": self._kind}

    def preview(self) -> JSONPreview:
        """Return the network's configuration."""
        return JSONPreview((self._filepath / "config.json").read_text(encoding="utf-8"))
