"""Project settings that Kedro reads: how configuration is merged and which hooks run."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path
from typing import Any

from omegaconf.resolvers import oc

from helix_sae.console import ConsoleHooks
from helix_sae.hooks import ProjectHooks
from helix_sae.latest import LatestHooks
from helix_sae.pipelines.early import EarlyChecks
from helix_sae.tracking import TrackingHooks


def _temporary_folder(name: str) -> str:
    """Path of `name` below the system's folder for temporary files: each user has one of their own."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    return (Path(tempfile.gettempdir()) / f"{name}-{user}").as_posix()


HOOKS: tuple[Any, ...] = (ProjectHooks(), LatestHooks(), ConsoleHooks(), EarlyChecks(), TrackingHooks())

# `.telemetry` withholds consent for commands; this keeps the plug-in out of sessions as well.
DISABLE_HOOKS_FOR_PLUGINS: tuple[str, ...] = ("kedro-telemetry",)

# Soft: an environment states only the parameters and path roots in which it differs from base.
CONFIG_LOADER_ARGS: dict[str, Any] = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    # Kedro resolves `oc.env` in credentials only; the roots of `cluster` and `test` come from it too.
    "custom_resolvers": {"oc.env": oc.env, "temporary_folder": _temporary_folder},
}
