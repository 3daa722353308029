"""Makes helical's Helix-mRNA compute what its architecture says.

helical 2.2 cuts the chain of layers, scans wrongly past the first chunk and lets left padding leak into the
state. The network's modules and weights are right; only its ``forward`` is not. :func:`mend` gives the same
``nn.Module`` object the forwards of :mod:`helix_sae.models.helix.fast.forward` (parameter names, hooks and
module paths stay), after :func:`diagnose` has found out by behaviour, on a tiny network of the same class,
which of the defects the installed helical has.
"""

from __future__ import annotations

import logging
from types import MethodType

import torch
from torch import nn

from helix_sae.models.helix.diagnosis import Defects, diagnose
from helix_sae.models.helix.fast import forward
from helix_sae.models.helix.fast.choice import linear_forward
from helix_sae.models.helix.fast.linear import keep_few_shapes
from helix_sae.models.upstream import import_helical

__all__ = ["Defects", "compile_parts", "diagnose", "mend"]

LOGGER = logging.getLogger(__name__)

_SAID: set[Defects] = set()
"""Findings that this process has already been told of: it is the same helical for every model that is
opened."""


def mend(module: nn.Module) -> Defects:
    """Correct a ``HelixmRNAPretrainedModel`` in place and say so in the log, once in a process.

    The forwards are put in whether or not the upstream ones are right: they are also some twenty times faster
    on a CPU. Mending a module twice changes nothing.

    Returns
    -------
    Defects
        What the upstream code was found to do wrong.
    """
    keep_few_shapes()  # before the diagnosis runs a network
    defects = diagnose(type(module))
    modeling = import_helical("helix_mrna.modeling_helix_mrna")
    replacements = {
        modeling.Mamba2Mixer: forward.mixer_forward,
        modeling.Mamba2RMSNorm: forward.norm_forward,
        modeling.MambaRMSNormGated: forward.gated_norm_forward,
        modeling.HelixmRNAMLP: forward.feed_forward,
        nn.Linear: linear_forward,
        type(module): forward.chained_forward,
    }
    for child in module.modules():
        if type(child) in replacements:
            child.forward = MethodType(replacements[type(child)], child)
    if defects not in _SAID:
        _SAID.add(defects)
        if defects.any():
            LOGGER.info("Helix-mRNA: corrected in helical's forward: %s.", defects.describe())
        else:
            LOGGER.info("Helix-mRNA: helical's forward is right; a faster one takes its place.")
    return defects


def compile_parts(module: nn.Module) -> None:
    """Let ``torch.compile`` at what the mixers and feed-forwards of a mended network compute.

    Their calls stay as they are, so that hooks on blocks, mixers and feed-forwards work; compiling happens at
    the first pass, and again for shapes that are quite different.
    """
    modeling = import_helical("helix_mrna.modeling_helix_mrna")
    for child in module.modules():
        if type(child) in (modeling.Mamba2Mixer, modeling.HelixmRNAMLP):
            child.forward = torch.compile(child.forward)
