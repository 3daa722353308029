"""The arrows between packages, and what importing and loading must never do."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

HEAVY = (
    "torch",
    "helical",
    "transformers",
    "sklearn",
    "scipy",
    "matplotlib",
    "plotly",
    "anndata",
    "pandas",
    "numba",
)

# Loading with any of these can run code that a file brings along.
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_BUILTINS = {"eval", "exec", "__import__"}
UNSAFE_CALLS = {
    "torch.load",
    "torch.save",
    "yaml.load",
    "yaml.unsafe_load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "OmegaConf.unsafe_merge",
}
UNSAFE_KEYWORDS = {"allow_pickle", "trust_remote_code"}

# Everything about the process that an import could quietly change, as text that can be compared.
STATE = """
import json, logging, os, random, signal, socket, sys, threading, warnings

def state():
    found = {
        "log handlers": [repr(h) for h in logging.getLogger().handlers],
        "log level": logging.getLogger().level,
        "log propagation": [logging.root.propagate, logging.root.manager.disable, logging.raiseExceptions],
        "warnings": repr(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "random": repr(random.getstate()),
        "hooks": [repr(sys.excepthook), repr(sys.displayhook), repr(warnings.showwarning)],
        "signals": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "threads": threading.active_count(),
        "default timeout": socket.getdefaulttimeout(),
        "recursion": sys.getrecursionlimit(),
    }
    if "numpy" in sys.modules:
        import numpy as np
        found["numpy"] = [repr(np.random.get_state()), repr(np.geterr()), repr(np.get_printoptions())]
    if "torch" in sys.modules:
        import torch
        found["torch"] = [
            torch.get_num_threads(), torch.get_num_interop_threads(), torch.is_grad_enabled(), str(torch.get_default_dtype()),
            torch.initial_seed(), repr(torch.get_rng_state().tolist()), torch.are_deterministic_algorithms_enabled(),
            torch.backends.mkldnn.enabled, torch.get_float32_matmul_precision(),
        ]
    if "matplotlib" in sys.modules:
        import matplotlib
        found["matplotlib"] = repr(sorted(matplotlib.rcParams.items(), key=lambda item: item[0]))
    if "pandas" in sys.modules:
        import pandas as pd
        found["pandas"] = [repr(pd.get_option("mode.copy_on_write")), repr(pd.get_option("display.max_rows"))]
    return found

def refuse(*arguments, **keywords):
    raise AssertionError("an import used the network")

def report(before, after, **more):
    changed = {k: [str(before.get(k))[:300], str(after[k])[:300]] for k in after if k in before and before[k] != after[k]}
    print(json.dumps({"changed": changed, **more}))
"""


def in_fresh_python(script: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", STATE + script], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def sources(project_path: Path) -> list[Path]:
    found = sorted((project_path / "src").rglob("*.py"))
    assert found
    return found


def test_arrows_between_packages(project_path: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=project_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_changes_nothing_and_loads_nothing_heavy() -> None:
    result = in_fresh_python(
        f"""
import time
socket.socket.connect = refuse
before = state()
start = time.process_time()
import helix_sae
seconds = time.process_time() - start
report(before, state(), seconds=seconds, heavy=[name for name in {HEAVY!r} if name in sys.modules])
"""
    )
    assert result["changed"] == {}
    assert result["heavy"] == []
    assert isinstance(result["seconds"], float)
    assert result["seconds"] < 0.5


@pytest.mark.slow
def test_importing_every_library_module_changes_nothing() -> None:
    """What third parties do on import is theirs: a twin process tells which they are, and they are there first."""
    result = in_fresh_python(
        """
import importlib, pkgutil
socket.socket.connect = refuse

def import_all():
    import helix_sae
    names = [m.name for m in pkgutil.walk_packages(helix_sae.__path__, "helix_sae.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return names

def third_parties():
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        import_all()
        found = [n for n in sys.modules if n.partition(".")[0] not in ("helix_sae", "__main__", "__mp_main__")]
        with os.fdopen(write, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return json.load(pipe)

for name in third_parties():
    try:
        importlib.import_module(name)
    except Exception:
        pass  # made by its parent, and not importable by itself
before = state()
names = import_all()
report(before, state(), modules=names, helical="helical" in sys.modules)
"""
    )
    assert result["changed"] == {}
    assert not result["helical"], (
        "helical reconfigures logging when it is imported: only opening a model may do that"
    )
    modules = result["modules"]
    assert isinstance(modules, list)
    assert "helix_sae.pipeline_registry" in modules


def test_the_public_face_is_complete() -> None:
    import helix_sae

    assert dir(helix_sae) == sorted(helix_sae.__all__)
    for name in helix_sae.__all__:
        assert getattr(helix_sae, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        helix_sae.no_such_name  # noqa: B018


def test_no_source_can_run_code_from_a_file(project_path: Path) -> None:
    found = [
        f"{path.relative_to(project_path)}:{line}: {what}"
        for path in sources(project_path)
        for line, what in unsafe_uses(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch.load as x; from torch import load",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "torch.load('x', weights_only=safe)",
        "eval('1')",
        "np.load('x', allow_pickle=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "table.to_pickle('x')",
    ],
)
def test_the_scan_for_unsafe_code_sees(code: str) -> None:
    assert list(unsafe_uses(ast.parse(code)))


def test_the_scan_for_unsafe_code_lets_pass() -> None:
    assert not list(
        unsafe_uses(
            ast.parse(
                "model.eval(); np.load('x', allow_pickle=False); torch.compile(f); torch.load('x', weights_only=True)"
            )
        )
    )


def test_no_catalog_entry_is_a_pickle(project_path: Path) -> None:
    for path in (project_path / "conf").rglob("*.yml"):
        for name, entry in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
            kind = entry.get("type", "") if isinstance(entry, dict) else ""
            assert not any(word in str(kind).lower() for word in ("pickle", "joblib", "dill")), (
                f"{path}: {name}"
            )


def unsafe_uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            names = set()
        for name in names:
            if name.split(".")[0] in UNSAFE_MODULES or name in UNSAFE_CALLS:
                yield node.lineno, f"import of {name}"
        if isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in unsafe_call(node))


def unsafe_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    if isinstance(node.func, ast.Name) and called in UNSAFE_BUILTINS:
        yield f"{called}()"
    if called == "torch.load" and _restricted(node):
        return
    if called in UNSAFE_CALLS or called.rpartition(".")[2] in {"read_pickle", "to_pickle"}:
        yield f"{called}()"
    for keyword in node.keywords:
        refused = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in UNSAFE_KEYWORDS and not refused:
            yield f"{called}({keyword.arg}=...)"


def _restricted(node: ast.Call) -> bool:
    """torch's reader that builds tensors and plain containers only, and calls nothing that a file names."""
    return any(
        k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
        for k in node.keywords
    )


WIDEST = 110
UNBREAKABLE = re.compile(r"# (noqa|pyright:|type:|fmt:)")


def wide_lines(source: str) -> list[int]:
    """Numbers of the lines that are too long, but for the first of a docstring (a summary is one line) and pragmas."""
    summaries = {
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        number
        for number, line in enumerate(source.splitlines(), start=1)
        if len(line) > WIDEST and number not in summaries and not UNBREAKABLE.search(line)
    ]


def test_lines_stay_within_110_columns(project_path: Path) -> None:
    wide = {
        path.relative_to(project_path).as_posix(): numbers
        for path in sources(project_path)
        if (numbers := wide_lines(path.read_text(encoding="utf-8")))
    }
    assert wide == {}


REFLOWED = re.compile(
    r"^ *(Attributes|Examples|Notes|Parameters|Raises|References|Returns|Yields) -{3,}", re.MULTILINE
)


def test_no_heading_of_a_docstring_was_reflowed_into_its_text(project_path: Path) -> None:
    assert REFLOWED.search("References ---------- Kozak M.")
    found = [path for path in sources(project_path) if REFLOWED.search(path.read_text(encoding="utf-8"))]
    assert found == []
