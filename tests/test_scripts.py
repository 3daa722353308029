"""The scripts of the pages: every type that their comments state is checked, as strictly as TypeScript can."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = ("src/helix_sae/reporting/templates", "src/helix_sae/explorer/site/static")


def complaints(scripts: list[Path], folder: Path) -> str:
    """What TypeScript says of some scripts; the test is skipped where it is not installed."""
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("there is no TypeScript on this machine (npm install --global typescript)")
    options = {
        "checkJs": True,
        "noEmit": True,
        "strict": True,
        "target": "ES2022",
        "module": "ES2022",
        "moduleResolution": "bundler",
        "lib": ["ES2023", "DOM", "DOM.Iterable"],
        "types": [],
    }
    told = {"compilerOptions": options, "files": [path.as_posix() for path in scripts]}
    (folder / "tsconfig.json").write_text(json.dumps(told), encoding="utf-8")
    done = subprocess.run(
        [tsc, "--project", folder], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode == 0) == (not done.stdout), done.stderr
    return done.stdout


def test_every_script_keeps_to_its_types(project_path: Path, tmp_path: Path) -> None:
    scripts = [path for folder in SCRIPTS for path in sorted((project_path / folder).glob("*.js"))]
    assert {"atlas.js", "explorer.js"} <= {path.name for path in scripts}
    assert all(path.read_text(encoding="utf-8").startswith("// @ts-check\n") for path in scripts)
    assert complaints(scripts, tmp_path) == ""


def test_a_wrong_type_is_told(tmp_path: Path) -> None:
    script = tmp_path / "wrong.js"
    script.write_text("/** @param {number} x */\nconst f = (x) => x;\nf('1');\n", encoding="utf-8")
    assert "wrong.js(3,3): error TS2345" in complaints([script], tmp_path)
