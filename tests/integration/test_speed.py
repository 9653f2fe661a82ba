"""The speed comparison: workloads, bound and bookkeeping. Peers are not run."""

import importlib
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fedtrain.core import seeds
from fedtrain.runtimes.compiled import CompiledRuntime

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def module(name):
    return importlib.import_module(f"simulations.speed.{name}")


def small(kind="dense"):
    """Three clients of unequal size with batches of 4: 2, 1 and 3 steps."""
    random = np.random.default_rng(0)

    def leaf(*shape):
        return random.normal(0.0, 0.3, shape).astype(np.float32)

    rows, offsets = 21, np.array([0, 7, 10, 21])
    if kind == "characters":
        features = random.integers(1, 6, [rows, 5]).astype(np.int32)
        labels = random.integers(0, 6, [rows, 5]).astype(np.int32)
        cells = [leaf(3, 16), leaf(4, 16), leaf(16), leaf(4, 16), leaf(4, 16), leaf(16)]
        weights = [leaf(6, 3), *cells, leaf(4, 6), leaf(6)]
    else:
        shape = [rows, 3] if kind == "dense" else [rows, 4, 4, 1]
        features = random.normal(size=shape).astype(np.float32)
        labels = random.integers(0, 2, rows).astype(np.int32)
        kernels = [leaf(3, 5)] if kind == "dense" else [leaf(3, 3, 1, 2), leaf(8, 5)]
        kernels.append(leaf(5, 2))
        weights = [w for k in kernels for w in (k, leaf(k.shape[-1]))]
    return module("workload").Workload(
        name="small",
        kind="characters" if kind == "characters" else "feedforward",
        batch_size=4,
        learning_rate=0.5,
        features=features,
        labels=labels,
        offsets=offsets,
        weights=weights,
        padding="SAME",
    )


def ours(workload):
    models = module("models")
    round_ = module("variants").round_of(workload, "plain")
    state = round_.init(models.model_of(workload).init(seeds.root(0)))
    data = module("peers.ours.worker").dataset(workload)
    fresh = round_.client_work.init_state(state.weights)
    client = importlib.import_module("fedtrain.rounds.runtime").CohortClient
    cohort = [client(data.client_id(i), data.client(i), fresh) for i in range(3)]
    result = CompiledRuntime().run_round(round_, state, cohort, seeds.root(1))
    return models.flat(workload, result.state.weights.trainable)


@pytest.mark.parametrize(
    ("kind", "loop"),
    [
        ("dense", "graph"),
        ("dense", "xla"),
        ("dense", "stacked"),
        ("images", "graph"),
        ("characters", "graph"),
        ("characters", "stacked"),
    ],
)
def test_the_bound_makes_the_same_steps_as_fedtrain(kind, loop):
    workload = small(kind)
    bound = module("bound")
    updates = bound.update(workload, getattr(bound, loop)(workload, 2))
    expected = ours(workload)
    measure = module("measure")
    assert measure.largest_difference(updates, expected) < 1e-5
    assert measure.largest_difference(expected, workload.weights) > 1e-2


def test_stacked_groups_leave_no_client_out():
    workload = small()
    bound = module("bound")
    whole = bound.update(workload, bound.stacked(workload, 1))
    by_one = bound.update(workload, bound.stacked(workload, 2, group=1))
    assert module("measure").largest_difference(whole, by_one) < 1e-6


def test_threads_share_the_steps_of_all_clients():
    workload = small()
    loops = module("bound").graph(workload, 2)
    positions = [job.positions for job in loops.jobs]
    assert sorted(itertools.chain(*positions)) == [0, 1, 2]
    steps = [sum(len(workload.steps()[p]) for p in part) for part in positions]
    assert steps == [3, 3]
    with ThreadPoolExecutor(2) as pool:
        module("bound").once(loops, pool)


def test_batches_cover_every_row_once_and_stay_within_a_client():
    steps = small().steps()
    assert [len(own) for own in steps] == [2, 1, 3]
    assert [b - a for own in steps for a, b in own] == [4, 3, 3, 4, 4, 3]
    assert steps[1] == [(7, 10)]


def test_a_workload_is_read_as_it_was_saved(tmp_path):
    workload = small("images")
    module_ = module("workload")
    again = module_.load(module_.save(workload, tmp_path))
    assert (again.padding, again.batch_size) == ("SAME", 4)
    np.testing.assert_array_equal(again.features, workload.features)
    for own, other in zip(again.weights, workload.weights, strict=True):
        np.testing.assert_array_equal(own, other)


def test_the_mlp_has_the_size_it_is_said_to_have():
    workload = module("workloads").mlp()
    assert workload.features.shape == (10_000, 23)
    assert sum(w.size for w in workload.weights) == 3_682
    assert sum(map(len, workload.steps())) == 500
    assert 0.4 < workload.labels.mean() < 0.6


def test_the_cnn_is_that_of_mcmahan(data_dir):
    workload = module("workloads").cnn()
    assert sum(w.size for w in workload.weights) == 1_663_370
    assert workload.num_clients == 10
    assert sum(map(len, workload.steps())) == 50


WORKER = """
import subprocess, sys
sys.path.insert(0, {root!r})
from simulations.speed.session import Session, arguments
session = Session()
print("a library says something")
workload, options = arguments()
child = subprocess.Popen(["sleep", "1000"])
session.ready(versions={{}}, settings=dict(options))
state = [w + options["by"] for w in workload.weights]
rounds = []
session.run(lambda: rounds.append(child.pid), lambda: state)
"""


def test_a_process_is_asked_weighed_and_ended_with_its_children(tmp_path):
    workload = small()
    folder = module("workload").save(workload, tmp_path)
    script, python = tmp_path / "worker.py", tmp_path / "python"
    script.write_text(WORKER.format(root=str(ROOT)))
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$3" "$4"\n')
    python.chmod(0o755)
    process_ = module("process")
    process = process_.MeasuredProcess(python, "any", folder, {"by": 1.0})
    assert len(process.rounds(3)) == 3
    moved = module("measure").largest_difference(process.weights(), workload.weights)
    assert moved == pytest.approx(1.0, abs=1e-6)
    assert process.peak_bytes() > 10_000_000
    pids = process_.family(process._process.pid)
    assert len(pids) >= 2
    process.end()
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids[:1])
    assert all(process_._started(pid) is None for pid in pids)


def test_a_process_that_fails_is_quoted(tmp_path):
    folder = module("workload").save(small(), tmp_path)
    with pytest.raises(module("process").ProcessError, match="No module named"):
        module("process").MeasuredProcess(
            Path(sys.executable), "no_such_module", folder, {}
        )


class FakeProcess:
    """Answers as a measured process does, after ``seconds`` a round."""

    alive = 0

    def __init__(self, seconds, weights):
        self.facts = {"settings": {"seconds": seconds}, "versions": {"fake": "1"}}
        self.seconds_to_start = 1.0
        self._seconds, self._weights = seconds, weights
        FakeProcess.alive += 1

    def rounds(self, number):
        return [self._seconds] * number

    def weights(self):
        return self._weights

    def cpu_seconds(self):
        return 0.0

    def peak_bytes(self):
        return 5_000_000

    def end(self):
        FakeProcess.alive -= 1


@pytest.fixture
def results():
    systems, measure = module("systems"), module("measure")
    workload = small()
    moved = [w + 0.1 for w in workload.weights]
    wrong = [w + 0.2 for w in workload.weights]
    chosen = [
        systems.OURS,
        systems.BOUND,
        systems.System(name="pfl", peer="p", settings=({"s": 3.0}, {"s": 2.0})),
        systems.System(name="TFF", peer="wrong"),
        systems.System(name="Flower", peer="broken"),
    ]

    def start(system, settings):
        if system.peer == "broken":
            raise module("process").ProcessError("No module named flwr")
        weights = wrong if system.peer == "wrong" else moved
        seconds = settings.get("s", 0.5 if system.name == "bound" else 1.0)
        return FakeProcess(seconds, weights)

    return measure.measured(workload, chosen, start, num_stretches=3)


def test_the_fastest_settings_are_measured_and_every_process_is_ended(results):
    assert results["pfl"].seconds() == 2.0
    assert len(results["pfl"].stretches) == 3
    assert module("measure").ratios(results, "bound", "fedtrain").tolist() == [0.5] * 3
    assert FakeProcess.alive == 0


def test_another_update_and_a_broken_peer_are_left_out_with_the_reason(results):
    assert results["TFF"].failure == "another update: 1.0e-01 away"
    assert not results["TFF"].stretches
    assert "flwr" in results["Flower"].failure


def test_tables_name_bars_and_who_is_left_out_and_the_plot_is_drawn(tmp_path, results):
    comparison = module("comparison")
    comparison.write(tmp_path, "mlp", results)
    text = (tmp_path / "table.md").read_text()
    assert "| pfl " in text
    assert ">= 25: missed" in text
    assert "Flower: left out, No module named flwr" in text
    assert (tmp_path / "ratios.png").stat().st_size > 5_000
    again = comparison.read(tmp_path / "results.json")["mlp"]
    assert again["pfl"].seconds() == 2.0
