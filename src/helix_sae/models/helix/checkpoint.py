"""Helix-mRNA's checkpoints, read through helical."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import nn

from helix_sae.errors import ModelError
from helix_sae.models.checkpoints import CONFIG_NAME, check_complete, check_declared, weight_files
from helix_sae.models.helix.heads import DESCRIPTION_NAME, HEAD_DESCRIPTION, HEAD_WEIGHTS, WEIGHTS_NAME
from helix_sae.models.helix.mending import mend
from helix_sae.models.upstream import import_helical, undisturbed_logging

_log = logging.getLogger(__name__)


def files_that_count(directory: Path) -> list[Path]:
    """Configuration, weights and heads of a checkpoint.

    Raises
    ------
    ModelError
        If one is missing, or the weights are not in safetensors.
    """
    config = directory / CONFIG_NAME
    if not config.is_file():
        raise ModelError(f"{directory} is not a checkpoint: it has no {CONFIG_NAME}.")
    read_outs = (WEIGHTS_NAME, DESCRIPTION_NAME, HEAD_WEIGHTS, HEAD_DESCRIPTION)
    heads = [directory / name for name in read_outs if (directory / name).exists()]
    return [config, *weight_files(directory), *heads]


def read_network(directory: Path) -> nn.Module:
    """A mended network with the weights of a checkpoint, on the CPU in float32.

    Raises
    ------
    ModelError
        If helical cannot load it, or would leave some of its weights at random.
    """
    check_declared(directory)
    helix = import_helical("helix_mrna")
    # Loaded on the CPU in float32 whatever the device: upstream would choose bfloat16 with flash attention.
    configuration = helix.HelixmRNAConfig(device="cpu")
    configuration.config["model_name"] = str(directory)
    try:
        with undisturbed_logging():
            module: nn.Module = helix.HelixmRNA(configurer=configuration).model
        check_complete(directory, list(module.state_dict()))
        _log.info("%s: %d weights were loaded", directory, len(module.state_dict()))
    except ModelError:
        raise
    except Exception as error:  # upstream, transformers and safetensors raise a dozen kinds
        raise ModelError(
            f"The checkpoint in {directory} cannot be loaded ({type(error).__name__}: {error}); fetch it "
            "again, or write it again with helical's save_pretrained."
        ) from error
    mend(module)
    return module


def upstream_tokenizer() -> Any:
    """helical's ``CharTokenizer``."""
    return import_helical("helix_mrna.helix_mrna_tokenizer").CharTokenizer
