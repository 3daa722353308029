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
    from helix_sae.models.helix.loading import HelixHandle
    from helix_sae.models.helix.pretraining import Pretrained


class HelixModelDataset(AbstractDataset[None, "HelixHandle"]):
    """Reference to a Helix-mRNA checkpoint; the model is opened in each process on first use.

    Parameters
    ----------
    filepath : str, optional
        A local directory in Hugging Face layout.
    hub_id : str, optional
        Instead of a directory: a name on the Hugging Face hub, such as ``helical-ai/Helix-mRNA``.
    codon_markers : {"cds", "none"}
        Whether an ``E`` stands before each codon of a coding region.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``... or ``auto``.
    dtype : {"float32", "float64", "bfloat16"}
    compiled : bool
        Whether mixers and feed-forwards go through ``torch.compile``.
    revision : str, optional
        Commit or tag of a hub id.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.

    Examples
    --------
    ::

        helix_model:
          type: helix_sae.datasets.model.HelixModelDataset
          filepath: data/06_models/helix_mini
          device: auto
    """

    def __init__(
        self,
        *,
        filepath: str | None = None,
        hub_id: str | None = None,
        codon_markers: CodonMarkers = "cds",
        device: str = "auto",
        dtype: str = "float32",
        compiled: bool = False,
        revision: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {
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
        self._handle: HelixHandle | None = None
        self.metadata = metadata

    def load(self) -> HelixHandle:
        """Make the handle; its fingerprint is computed once."""
        from helix_sae.models.helix.loading import handle_for  # noqa: PLC0415 - slow to import; all commands read catalogs

        if self._handle is None:
            self._handle = handle_for(self._source, **self._arguments)
        return self._handle

    def save(self, data: None) -> None:
        """Refuse: a model is made by the pretraining pipeline, under its own name."""
        raise DatasetError(f"{self._source}: a handle cannot be saved; see HelixCheckpointDataset.")

    def _exists(self) -> bool:
        return self._filepath is None or (self._filepath / "config.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"source": self._source, **self._arguments}

    def _release(self) -> None:
        self._handle = None

    def preview(self) -> JSONPreview:
        """Return the handle."""
        return JSONPreview(json.dumps(self.load().model_dump(mode="json")))


class HelixCheckpointDataset(AbstractDataset["Pretrained", "Pretrained"]):
    """A trained network with its heads, as a local directory in Hugging Face layout that helical loads.

    The history of the training is a table of its own in the catalog: loaded again, it is empty.

    Parameters
    ----------
    filepath : str
        A local directory. It is replaced as a whole.
    metadata : mapping, optional
        Ignored by Kedro; plugins read it.

    Examples
    --------
    ::

        helix_mini:
          type: helix_sae.datasets.model.HelixCheckpointDataset
          filepath: data/06_models/helix_mini
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Pretrained:
        """Load the network and its heads on the CPU."""
        import pandas as pd  # noqa: PLC0415

        from helix_sae.models.helix.loading import load_helix  # noqa: PLC0415
        from helix_sae.models.helix.pretraining import Pretrained  # noqa: PLC0415

        model = load_helix(self._filepath, device="cpu")
        if model.heads is None:
            raise DatasetError(f"{self._filepath}: the checkpoint has no heads beside it.")
        return Pretrained(model.module, model.heads, pd.DataFrame())

    def save(self, data: Pretrained) -> None:
        """Write the checkpoint, whole or not at all."""
        from helix_sae.models.helix.architecture import save_network  # noqa: PLC0415
        from helix_sae.models.helix.heads import save_heads  # noqa: PLC0415

        target = str(self._filepath)
        with storage_errors(target, "written"), working_folder(target) as working:
            save_network(data.network, working)
            save_heads(data.heads, working)
            replace_folder(working, target)

    def _exists(self) -> bool:
        return (self._filepath / "config.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix()}

    def preview(self) -> JSONPreview:
        """Return the network's configuration."""
        return JSONPreview((self._filepath / "config.json").read_text(encoding="utf-8"))
