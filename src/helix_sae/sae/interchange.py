"""Reading and writing SAEs in the layout of SAELens 6 (``cfg.json`` and ``sae_weights.safetensors``).

``sae_lens.SAE.load_from_disk`` reads the directories written here; beside its two files lie
``helix_sae.json`` with our configuration and metadata and, where it is known, ``feature_stability.csv`` with
the stability of each feature. Weights take raw activations: the scaling of training is folded in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from helix_sae.errors import HelixSaeError, StoreError
from helix_sae.sae.architectures.gated import GatedAutoencoder
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import SaeConfig, parse_sae_config
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.stability import STABILITY_COLUMNS
from helix_sae.temporary import whole_file

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
METADATA_FILE = "helix_sae.json"
STABILITY_FILE = "feature_stability.csv"
SAELENS_VERSION = "6.54.0"
"""Version of SAELens whose layout is written; it must be 6 or later, or SAELens converts an older layout."""

_LARGEST_JSON = 16 * 2**20
_SAYS_NOTHING = ("dtype", "device", "metadata")
"""Keys of ``cfg.json`` on which no code and no reconstruction depends."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def save_sae(
    sae: SparseAutoencoder, directory: str | Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write an SAE to a directory, made if needed.

    Parameters
    ----------
    sae : SparseAutoencoder
        What to write.
    directory : path
        Local directory; files of the same names are replaced.
    metadata : mapping, optional
        JSON values kept with it beside its ``origin`` (site, scaling, training settings, hashes);
        :func:`load_metadata` and ``origin`` give them back. ``model`` and ``site`` also stand where SAELens
        has the model's and the hook's name.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    config, tensors = _saelens_form(sae)
    kept = {**sae.origin, **(metadata or {})}
    names = {"model_name": kept.get("model"), "hook_name": kept.get("site")}
    config["metadata"] |= {name: value for name, value in names.items() if value is not None}
    own = {"config": sae.config.model_dump(mode="json"), "metadata": kept}
    if sae.stability is None:
        (target / STABILITY_FILE).unlink(missing_ok=True)
    else:
        sae.stability.to_csv(target / STABILITY_FILE, index=False)
    with whole_file(target / WEIGHTS_FILE) as file:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, file)
    (target / METADATA_FILE).write_text(json.dumps(own, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _saelens_form(sae: SparseAutoencoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Contents of ``cfg.json``, and the tensors."""
    extra, tensors = sae.to_saelens()
    config = {
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **extra,
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            "sae_lens_training_version": None,
            "trainer": "helix_sae",
        },
    }
    return config, tensors


def load_sae(directory: str | Path) -> SparseAutoencoder:
    """Read an SAE from a directory written by :func:`save_sae` or by SAELens (standard, topk, jumprelu, gated).

    Raises
    ------
    StoreError
        If a file is missing, damaged, or says something that cannot be honoured.
    """
    source = Path(directory)
    config = _read_json(source / CONFIG_FILE)
    tensors = _read_tensors(source / WEIGHTS_FILE)
    own = _read_json(source / METADATA_FILE) if (source / METADATA_FILE).exists() else None
    try:
        sae = _from_saelens(config, tensors) if own is None else _from_own(own, config, tensors)
        sae.stability = _read_stability(source / STABILITY_FILE, sae.d_sae)
        sae.origin = load_metadata(source)
        return sae
    except StoreError:
        raise
    except HelixSaeError as error:
        raise StoreError(f"The SAE in {source} cannot be loaded: {error}") from error


def load_metadata(directory: str | Path) -> dict[str, Any]:
    """Metadata given to :func:`save_sae`; empty for a directory that SAELens wrote.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    path = Path(directory) / METADATA_FILE
    if not path.exists():
        return {}
    metadata = _read_json(path).get("metadata", {})
    if not isinstance(metadata, dict):
        raise StoreError(f"{path}: 'metadata' has to be an object; write the SAE again.")
    return metadata


def _from_own(
    own: Mapping[str, Any], config: Mapping[str, Any], tensors: dict[str, Tensor]
) -> SparseAutoencoder:
    values = own.get("config")
    if not isinstance(values, dict):
        raise StoreError(f"{METADATA_FILE}: 'config' has to be an object; write the SAE again.")
    parsed = parse_sae_config(values)
    if parsed.d_in is None or (parsed.d_in, parsed.d_sae) != (config.get("d_in"), config.get("d_sae")):
        raise StoreError(
            f"{METADATA_FILE} describes an SAE of d_in = {parsed.d_in} but {CONFIG_FILE} one of "
            f"d_in = {config.get('d_in')}, d_sae = {config.get('d_sae')}: the files do not belong together."
        )
    parsed.check_width("the stored SAE")
    sae = architecture_of(parsed).autoencoder(parsed, tensors)
    # SAELens reads the other file: where they differ, the same directory would mean two different SAEs.
    for key, meant in _saelens_form(sae)[0].items():
        if key not in _SAYS_NOTHING and config.get(key) != meant:
            raise StoreError(
                f"{CONFIG_FILE} says {key} = {config.get(key)!r}, but the SAE that {METADATA_FILE} "
                f"describes has {meant!r}: one of them was changed. Write the SAE again, or delete "
                f"{METADATA_FILE} to go by {CONFIG_FILE} alone."
            )
    return sae


def _from_saelens(config: Mapping[str, Any], tensors: dict[str, Tensor]) -> SparseAutoencoder:
    name = config.get("architecture")
    if not isinstance(name, str) or name not in _READERS:
        raise StoreError(
            f"{CONFIG_FILE} names the architecture {name!r}; those that can be read are "
            f"{', '.join(_READERS)}."
        )
    for key, only in (("normalize_activations", "none"), ("reshape_activations", "none")):
        if config.get(key, only) not in (only, None):
            raise StoreError(
                f"{CONFIG_FILE}: {key} = {config[key]!r} is not supported; fold it into the weights first."
            )
    d_in, d_sae = (_whole(config, key) for key in ("d_in", "d_sae"))
    common = {"d_in": d_in, "expansion_factor": d_sae / d_in}
    parsed, tensors = _READERS[name](common, config, tensors)
    sae = architecture_of(parsed).autoencoder(parsed, tensors)
    if config.get("apply_b_dec_to_input", True) is False:
        _apply_b_dec(sae)
    return sae


def _read_standard(
    common: dict[str, Any], config: Mapping[str, Any], tensors: dict[str, Tensor]
) -> tuple[SaeConfig, dict[str, Tensor]]:
    return parse_sae_config({"architecture": "relu", **common}), tensors


def _read_topk(
    common: dict[str, Any], config: Mapping[str, Any], tensors: dict[str, Tensor]
) -> tuple[SaeConfig, dict[str, Tensor]]:
    parsed = parse_sae_config({"architecture": "topk", "k": _whole(config, "k"), **common})
    parsed.check_width("the stored SAE")
    if config.get("rescale_acts_by_decoder_norm", False):
        # There, features are chosen and given out in units of their decoder row's norm.
        norm = _tensor(tensors, "W_dec").norm(dim=1)
        if bool((norm == 0).any()):
            raise StoreError(
                f"{WEIGHTS_FILE}: a decoder row is zero, which rescale_acts_by_decoder_norm cannot divide by."
            )
        tensors = {
            **tensors,
            "W_enc": _tensor(tensors, "W_enc") * norm,
            "b_enc": _tensor(tensors, "b_enc") * norm,
            "W_dec": _tensor(tensors, "W_dec") / norm[:, None],
        }
    return parsed, tensors


def _read_jumprelu(
    common: dict[str, Any], config: Mapping[str, Any], tensors: dict[str, Tensor]
) -> tuple[SaeConfig, dict[str, Tensor]]:
    return parse_sae_config({"architecture": "jumprelu", **common}), tensors


def _read_gated(
    common: dict[str, Any], config: Mapping[str, Any], tensors: dict[str, Tensor]
) -> tuple[SaeConfig, dict[str, Tensor]]:
    return parse_sae_config({"architecture": "gated", **common}), tensors


_Reader = Callable[
    [dict[str, Any], Mapping[str, Any], dict[str, Tensor]], tuple[SaeConfig, dict[str, Tensor]]
]
_READERS: dict[str, _Reader] = {
    "standard": _read_standard,
    "topk": _read_topk,
    "jumprelu": _read_jumprelu,
    "gated": _read_gated,
}


def _apply_b_dec(sae: SparseAutoencoder) -> None:
    """Turn weights that take ``x`` into weights that take ``x - b_dec``."""
    with torch.no_grad():
        shift = sae.b_dec @ sae.W_enc
        for name in sae.encoder_biases:
            growth = sae.r_mag.exp() if isinstance(sae, GatedAutoencoder) and name == "b_mag" else 1.0
            getattr(sae, name).add_(shift * growth)


def _whole(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise StoreError(
            f"{CONFIG_FILE}: {key} has to be a whole number from 1 to {2**31 - 1}, not {value!r}."
        )
    return value


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise StoreError(f"{WEIGHTS_FILE} lacks the tensor {name}; it holds {sorted(tensors)}.")
    return tensors[name]


def _read_stability(path: Path, d_sae: int) -> pd.DataFrame | None:
    """The table, checked; None where there is none."""
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path, float_precision="round_trip")
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as a table ({error}); write the SAE again.") from error
    missing = [name for name in ("feature", "alive", *STABILITY_COLUMNS) if name not in table]
    if missing:
        raise StoreError(f"{path} lacks {', '.join(missing)}; write the SAE again, or delete the file.")
    wrong = [str(value) for value in table["certified"].unique() if value not in ("yes", "no", "unknown")]
    if wrong or table["feature"].tolist() != list(range(d_sae)):
        what = (
            f"certified = {wrong[0]}"
            if wrong
            else f"{len(table)} rows that do not name features 0 to {d_sae - 1}"
        )
        raise StoreError(f"{path} has {what}: it is not of this SAE. Write it again, or delete the file.")
    return table


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise StoreError(f"{path} is larger than {_LARGEST_JSON} bytes: it is no SAE configuration.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror or error}); is this an SAE directory?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not valid JSON ({error}); write the SAE again.") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} has to hold a JSON object; it holds a {type(value).__name__}.")
    return value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as safetensors ({error}); write the SAE again.") from error
    for name, value in tensors.items():
        if value.dtype not in _DTYPES:
            raise StoreError(
                f"{path}: tensor {name} has the type {value.dtype}; weights are floating-point numbers."
            )
    return {name: value.to(torch.float32) for name, value in tensors.items()}
