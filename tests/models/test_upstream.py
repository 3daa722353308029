"""helical is imported, and models are made, without a trace in the process's logging."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from helix_sae.models.upstream import import_helical, undisturbed_logging

SCRIPT = """
import json, logging, sys, warnings
import numpy, pandas, scipy.stats, torch  # they add warning filters of their own when they are imported

lines = []

class Recorder(logging.Handler):
    def emit(self, record):
        lines.append(f"{record.name}: {record.getMessage()}")

def state():
    root = logging.getLogger()
    return {
        "handlers": [type(h).__name__ for h in root.handlers], "level": root.level, "propagate": root.propagate,
        "disabled": root.disabled, "captured": logging._warnings_showwarning is not None,
        "showwarning": warnings.showwarning is shown, "filters": list(map(str, warnings.filters)) == filters,
        "helical": logging.getLogger("helical").level,
    }

shown, filters = warnings.showwarning, list(map(str, warnings.filters))
if HANDLER:
    logging.getLogger().addHandler(Recorder())
    logging.getLogger().setLevel(logging.DEBUG)
states = [state()]
import helix_sae.models.helix.loading, helix_sae.models.helix.architecture
states.append(state())
assert "helical" not in sys.modules, "importing the package must not import helical"
from pathlib import Path
from helix_sae.models.helix.architecture import Architecture, build_network, save_network
network = build_network(Architecture(hidden_size=8, head_dim=8, state_size=4, layers="M*"), seed=0)
states.append(state())
save_network(network, Path(DIRECTORY))
model = helix_sae.models.helix.loading.load_helix(DIRECTORY, device="cpu")
states.append(state())
before = len(lines)
logging.getLogger("helical.models.helix_mrna.model").warning("from helical")
logging.getLogger("user").warning("from the user")
print(json.dumps({"states": states, "lines": lines, "last": lines[before:]}))
"""


@pytest.mark.parametrize("has_handler", [True, False])
def test_import_and_load_leave_logging_alone(tmp_path: Path, has_handler: bool):
    script = (
        textwrap.dedent(SCRIPT)
        .replace("DIRECTORY", repr(str(tmp_path / "net")))
        .replace("HANDLER", str(has_handler))
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    first, *others = result["states"]
    assert all(state == first for state in others)
    if has_handler:
        assert result["last"] == ["helical.models.helix_mrna.model: from helical", "user: from the user"]
        # helical's own handler writes "time - LEVEL:name:message": with it, lines would stand there once more.
        assert "from the user" not in done.stderr
        assert "INFO:" not in done.stderr
        assert "Loading weights" not in done.stderr, "a bar of transformers"
        ours = [line for line in result["lines"] if line.startswith("helix_sae")]
        assert len(ours) == len(set(ours)) > 0
        assert not [
            line for line in result["lines"] if line.startswith("helical") and "from helical" not in line
        ]
    else:
        assert done.stderr.count("from the user") == 1


def test_the_block_restores_whatever_happens_in_it():
    root, upstream = logging.getLogger(), logging.getLogger("helical")
    before = (list(root.handlers), root.level, root.propagate, upstream.level, warnings.showwarning)
    with pytest.raises(KeyError), undisturbed_logging():  # noqa: PT012 - what is undone has to be done inside
        logging.captureWarnings(True)
        root.handlers.clear()
        root.addHandler(logging.StreamHandler())
        root.setLevel(logging.CRITICAL)
        root.propagate = not root.propagate
        upstream.setLevel(logging.DEBUG)
        raise KeyError
    assert before == (list(root.handlers), root.level, root.propagate, upstream.level, warnings.showwarning)


def test_captured_warnings_stay_captured():
    try:
        logging.captureWarnings(True)
        shown = warnings.showwarning
        with undisturbed_logging():
            logging.captureWarnings(False)
        assert warnings.showwarning is shown
    finally:
        logging.captureWarnings(False)


def test_warnings_are_silent_inside_only():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with undisturbed_logging():
            warnings.warn("inside", stacklevel=1)
        warnings.warn("outside", stacklevel=1)
    assert [str(w.message) for w in seen] == ["outside"]


def test_bars_of_transformers_are_hidden_inside_only():
    from transformers.utils import logging as told

    assert told.is_progress_bar_enabled()
    with undisturbed_logging():
        assert not told.is_progress_bar_enabled()
        with undisturbed_logging():
            pass
        assert not told.is_progress_bar_enabled()
    assert told.is_progress_bar_enabled()


def test_the_module_is_helical_s():
    assert import_helical("helix_mrna").HelixmRNA.__module__ == "helical.models.helix_mrna.model"
