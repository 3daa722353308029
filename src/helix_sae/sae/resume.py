"""State of a training run on disk, so that one that was killed goes on as if it had not been.

One safetensors file holds everything: tensors, and as JSON in its header the counters and the history. It
replaces the one before it in a single step, so there is always a whole one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from helix_sae.errors import StoreError
from helix_sae.sae.config import SaeConfig
from helix_sae.sae.learner import Learner
from helix_sae.temporary import own_folder, remove_abandoned, whole_file

_FORMAT = 2
_STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class Scratch:
    """Where, for which data, and how often the state of a run is kept.

    Attributes
    ----------
    directory : path
        Local scratch area, shared by any number of runs.
    data_key : str
        Names the data and their order (a hash of the store, the sequences, the batch size and the seed): a
        state is only taken up by a run with the same key, configurations, seed and number of steps.
    every_steps : int
        Steps between saves.
    """

    directory: str | Path
    data_key: str
    every_steps: int = 200


def state_path(scratch: Scratch, configs: Mapping[str, SaeConfig], settings: Mapping[str, Any]) -> Path:
    """File of a run's state, named by a hash of everything that its result depends on.

    Raises
    ------
    StoreError
        If the scratch area is not the user's own.
    """
    described = {
        "format": _FORMAT,
        "data": scratch.data_key,
        "configs": {name: config.model_dump(mode="json") for name, config in configs.items()},
        "settings": dict(settings),
    }
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return own_folder(scratch.directory) / key / _STATE_FILE


def save_state(path: Path, learners: Sequence[Learner], rows: Sequence[Mapping[str, Any]], done: int) -> None:
    """Write the state after ``done`` steps.

    Raises
    ------
    StoreError
        If the disk is full, or the folder may not be written to.
    """
    tensors: dict[str, Tensor] = {}
    counters: list[dict[str, Any]] = []
    for i, learner in enumerate(learners):
        kept, counter = learner.state()
        tensors.update({f"{i}/{name}": value for name, value in kept.items()})
        counters.append(counter)
    header = json.dumps({"done": done, "rows": list(rows), "counters": counters})
    try:
        with whole_file(path) as file:
            save_file(tensors, file, metadata={"state": header})
    except OSError as error:
        raise StoreError(
            f"{path}: the training state cannot be written ({error}); free space or give "
            "sae_training.scratch.directory another folder, and run again: the state before this one is kept."
        ) from error


def load_state(path: Path, learners: Sequence[Learner]) -> tuple[int, list[dict[str, Any]]]:
    """Bring learners to a saved state; give its number of steps and its history.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a handle, not a mapping
        for i, (learner, counter) in enumerate(zip(learners, header["counters"], strict=True)):
            prefix = f"{i}/"
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            learner.restore(own, counter)
        return int(header["done"]), list(header["rows"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StoreError(
            f"The saved training state {path} cannot be read ({error}); delete it to begin the training anew."
        ) from error


def drop_state(path: Path) -> None:
    """Delete the state of a finished run, and what killed ones left of theirs."""
    path.unlink(missing_ok=True)
    remove_abandoned(str(path.parent))
    if path.parent.exists() and not any(path.parent.iterdir()):
        path.parent.rmdir()
