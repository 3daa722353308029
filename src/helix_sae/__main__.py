"""``python -m helix_sae``: the same as ``kedro run``, in the project's folder."""

from __future__ import annotations

from kedro.framework.cli.project import run
from kedro.framework.project import configure_project


def main() -> None:
    """Run the pipeline that the command line names."""
    configure_project("helix_sae")
    run()


if __name__ == "__main__":
    main()
