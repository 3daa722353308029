"""What the command line sets is read by someone, or the run does not begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from helix_sae.errors import ConfigurationError
from helix_sae.runtime_parameters import check_runtime_parameters, settable_names

SETTABLE = {"sequences", "gff3", "sae_training"}


def test_names_at_the_top_of_parameters_and_names_that_catalogs_ask_for(tmp_path: Path) -> None:
    files = {
        "base/parameters.yml": "engine: {kind: serial}\n",
        "base/sae_training/parameters.yml": 'sae_training:\n  seed: "${globals:seed}"\n',
        "base/parameters_more.yaml": "{}\n",
        "base/parameters/nested/other.json": '{"deep": {"er": 1}}',
        "base/parameters/empty.yml": "# nothing\n",
        "base/parameters/notes.txt": "ignored: true",
        "base/ingestion/catalog.yml": (
            "raw:\n  filepath: ${runtime_params:sequences, ${globals:sequences}}\n"
            "  gff3: '${runtime_params: gff3}'\n"
        ),
        "base/globals.yml": "seed: 1\n",
        "mine/catalog/x.yml": "y: ${runtime_params:only_here}\n",
        "other/parameters.yml": "elsewhere: 1\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    base, mine = tmp_path / "base", tmp_path / "mine"
    assert settable_names([base]) == {"engine", "sae_training", "deep", "sequences", "gff3"}
    assert settable_names([base, mine, tmp_path / "none"]) - settable_names([base]) == {"only_here"}


def test_what_can_be_set_passes() -> None:
    check_runtime_parameters([], SETTABLE)
    check_runtime_parameters(["sequences", "sae_training"], SETTABLE)


def test_a_misspelt_name_is_refused_and_the_right_one_told() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'sequnces', which nothing reads. Did you mean 'sequences'\?"
    ):
        check_runtime_parameters(["sequnces"], SETTABLE)
    with pytest.raises(
        ConfigurationError, match=r"nothing reads\. There are: gff3, sae_training, sequences\."
    ):
        check_runtime_parameters(["gff3", "xyz"], SETTABLE)


def test_the_project_lets_the_documented_names_be_set(project_path: Path) -> None:
    names = settable_names([project_path / "conf" / "base"])
    assert {"sequences", "gff3", "intervals", "probe_sequences", "engine", "causal_acdc"} <= names
    assert not names & {"data_root", "model_root", "raw_root", "seed"}
