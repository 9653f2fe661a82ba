import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from fedtrain.runtimes.eager import EagerRuntime

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def algorithm():
    return run_blocks("docs/how-to/add-an-algorithm.md")


def run_blocks(page):
    """Runs a page's Python blocks one after another; returns their names."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names: dict = {"__name__": page}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names


def test_the_algorithm_page_runs_and_its_bound_holds(algorithm):
    before = algorithm["state"].weights.trainable[0]["kernel"]
    after = algorithm["result"].state.weights.trainable[0]["kernel"]
    moved = np.linalg.norm(after - before)
    assert 0 < moved <= 1.0


def test_the_runtime_page_agrees_with_plain_python(algorithm):
    runtime = run_blocks("docs/how-to/add-a-runtime.md")["ThreadRuntime"](2)
    given = [algorithm[name] for name in ("round_", "state", "cohort", "seed")]
    expected = EagerRuntime().run_round(*given).state.weights.trainable[0]["kernel"]
    actual = runtime.run_round(*given).state.weights.trainable[0]["kernel"]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_the_data_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks("docs/how-to/data.md")
    assert names["table"].shape == (names["split"].train.num_clients, 10)
    assert (tmp_path / "packed_loans").is_dir()


def test_what_the_calibration_page_prints_is_true():
    page = ROOT / "docs/how-to/calibrate-noise.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried > 0
    assert failed == 0
