"""The hooks of users: what is computed in one piece must still call the parts that somebody waits for."""

from __future__ import annotations

from typing import Any

from torch import nn


def is_watched(part: nn.Module) -> bool:
    """Whether a hook waits for a module to be called."""
    everywhere: Any = nn.modules.module
    here: Any = part
    return bool(
        here._forward_hooks
        or here._forward_pre_hooks
        or everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
    )
