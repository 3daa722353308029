"""What pyproject.toml cannot say: the wheel brings the project along, so that `helix-sae` works without a clone.

Configuration, the demo and ``helix_mini`` lie in the wheel as ``helix_sae/project``, which looks like a clone to Kedro.
"""

import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = (
    "conf",
    "data/01_raw/demo",
    "data/01_raw/demo_truth",
    "data/06_models/helix_mini",
    "data/06_models/helix_mini_saes",
    "notebooks",
    ".telemetry",
)


class BuildWithProject(build_py):
    """Copies what ships beside the modules; an editable installation finds it in the clone."""

    def run(self) -> None:
        """Build the modules, then the project."""
        super().run()
        if not self.editable_mode:
            for target, source in self.project_files().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            self.project_folder.joinpath("pyproject.toml").write_text(kedro_table(), encoding="utf-8")

    @property
    def project_folder(self) -> Path:
        """Where the project lies in what is built."""
        return Path(self.build_lib, "helix_sae", "project")

    def project_files(self) -> dict[Path, Path]:
        """What is copied, by where to. The user's own overrides stay at home."""
        found = (
            file for name in SHIPPED for file in [ROOT / name, *(ROOT / name).rglob("*")] if file.is_file()
        )
        own = ROOT / "conf" / "local"
        files = [file for file in found if own not in file.parents or file.name == ".gitkeep"]
        return {self.project_folder / file.relative_to(ROOT): file for file in files}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Everything that the build leaves, so that it can be removed again."""
        own = [] if self.editable_mode else [*self.project_files(), self.project_folder / "pyproject.toml"]
        return [*super().get_outputs(include_bytecode), *map(str, own)]


def kedro_table() -> str:
    """The table by which Kedro knows a project, of one whose modules lie elsewhere."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["kedro"]
    return "[tool.kedro]\n" + "".join(
        f'{key} = "{value}"\n' for key, value in (table | {"source_dir": "."}).items()
    )


setup(cmdclass={"build_py": BuildWithProject})
