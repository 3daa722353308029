"""Corrects transformers' Mamba-2 in place."""

from __future__ import annotations

import logging
from types import MethodType
from typing import Any

from torch import nn

from helix_sae.models.helix.fast.choice import linear_forward
from helix_sae.models.helix.fast.linear import keep_few_shapes
from helix_sae.models.mamba2 import mixer
from helix_sae.models.mamba2.diagnosis import Defects, diagnose

LOGGER = logging.getLogger(__name__)

_FORWARDS = {
    "Mamba2Mixer": mixer.mixer_forward,
    "MambaRMSNormGated": mixer.gated_norm_forward,
    "Mamba2RMSNorm": mixer.norm_forward,
    "Mamba2Block": mixer.block_forward,
    "Linear": linear_forward,
}

_SAID: set[Defects] = set()
"""Findings that this process has already been told of."""


def mend(module: nn.Module) -> Defects:
    """Correct a ``Mamba2Model`` in place and say so in the log, once in a process.

    The forwards are put in whether or not the upstream ones are right: they are also many times faster on a
    CPU, where upstream pads every sequence to 256 tokens. Mending a module twice changes nothing.

    Returns
    -------
    Defects
        What the upstream code was found to do wrong.
    """
    keep_few_shapes()  # before the diagnosis runs a network
    defects = diagnose(type(module))
    for child in module.modules():
        if type(child).__name__ in _FORWARDS:
            child.forward = MethodType(_FORWARDS[type(child).__name__], child)
    config: Any = module.config
    config.use_cache = False
    if defects not in _SAID:
        _SAID.add(defects)
        if defects.any():
            LOGGER.info(
                "Mamba2-mRNA: found in the installed forward: %s. A right one takes its place.",
                defects.describe(),
            )
        else:
            LOGGER.info("Mamba2-mRNA: the installed forward is right; a faster one takes its place.")
    return defects
