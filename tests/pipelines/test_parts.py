"""Parts that the data do not allow are left out by name, everything that depends on them too; other errors stop a run."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from helix_sae.datasets.structures import load_structure, save_structure
from helix_sae.errors import AnalysisError, DataError
from helix_sae.left_out import LeftOut, left_out_of
from helix_sae.pipelines.parts import part_node

REASON = "3 families are too few; give at least 5."


def too_few(_: Any) -> pd.DataFrame:
    raise AnalysisError(REASON)


def run(*nodes: Any, **inputs: Any) -> dict[str, Any]:
    datasets: Any = {name: MemoryDataset(value) for name, value in inputs.items()}
    found = SequentialRunner().run(Pipeline(list(nodes)), DataCatalog(datasets))
    return {name: dataset.load() for name, dataset in found.items()}


def test_the_reason_goes_with_everything_that_depends_on_it() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("its input was left out")

    found = run(
        part_node(too_few, ["numbers"], "effects_atp", name="a", part="effects"),
        part_node(never, ["numbers", "effects_atp"], ["table", "effect_figure", "effect_plotly", "circuit_graph"],
                  name="b", part="tables of the effects"),
        numbers=1,
    )  # fmt: skip
    missing = LeftOut("effects", REASON)
    assert left_out_of(found["table"]) == left_out_of(found["circuit_graph"]) == missing
    assert REASON in " ".join(found["effect_figure"].texts[0].get_text().split())
    assert REASON in found["effect_plotly"].layout.annotations[0].text


def test_an_object_that_was_left_out_is_kept(tmp_path: Any) -> None:
    save_structure(LeftOut("effects", REASON), tmp_path)
    assert load_structure(tmp_path) == LeftOut("effects", REASON)


def test_tables_survive_a_csv(tmp_path: Any) -> None:
    LeftOut("effects", REASON).table().to_csv(tmp_path / "t.csv", index=False)
    assert left_out_of(pd.read_csv(tmp_path / "t.csv")) == LeftOut("effects", REASON)


@pytest.mark.parametrize(
    "value", [None, 1, {}, {"reason": "x"}, pd.DataFrame(), pd.DataFrame({"reason": ["x"]})]
)
def test_results_are_not_taken_for_parts_that_were_left_out(value: Any) -> None:
    assert left_out_of(value) is None


def test_results_pass() -> None:
    assert run(part_node(lambda n: n + 1, ["n"], "m", name="add", part="a sum"), n=1) == {"m": 2}


def test_other_errors_stop_the_run() -> None:
    def broken(_: Any) -> None:
        raise DataError("row 3 is damaged")

    with pytest.raises(DataError, match="row 3"):
        run(part_node(broken, ["n"], "m", name="a", part="a part"), n=1)
