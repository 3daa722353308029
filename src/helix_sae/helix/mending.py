"""Makes helical's Helix-mRNA compute what its architecture says.

helical 2.2 cuts the chain of layers, scans wrongly past the first chunk and lets left padding leak into the state. The
network's modules and weights are right; only its ``forward`` is not. :func:`mend` gives the same ``nn.Module`` object the
forwards of :mod:`helix_sae.helix.forward` (parameter names, hooks and module paths stay), after :func:`diagnose` has
found out by behaviour, on a tiny network of the same class, which of the defects the installed helical has.
"""

from __future__ import annotations

import logging
from types import MethodType

from torch import nn

from helix_sae.helix import forward
from helix_sae.helix.diagnosis import Defects, diagnose
from helix_sae.helix.linear import linear_forward
from helix_sae.helix.upstream import import_modeling

__all__ = ["Defects", "diagnose", "mend"]

LOGGER = logging.getLogger(__name__)


def mend(module: nn.Module) -> Defects:
    """Correct a ``HelixmRNAPretrainedModel`` in place and say so once in the log.

    The forwards are put in whether or not the upstream ones are right: they are also some forty times faster on a CPU.
    Mending a module twice changes nothing.

    Returns
    -------
    Defects
        What the upstream code was found to do wrong.
    """
    defects = diagnose(type(module))
    modeling = import_modeling()
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
    if not getattr(module, "_helix_sae_mended", False):
        module._helix_sae_mended = True  # type: ignore[assignment]
        if defects.any():
            LOGGER.info("Helix-mRNA: corrected in helical's forward: %s.", defects.describe())
        else:
            LOGGER.info("Helix-mRNA: helical's forward is right; a faster one takes its place.")
    return defects
