"""What is tried, what is kept, what is remembered; timings are given, not taken."""

import json

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes import remembered, tuning
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.engine import Engine
from fedtrain.runtimes.execution import Execution, execution_from, intra_op_threads
from fedtrain.runtimes.strategies import STRATEGIES

MODEL = dense_classifier(4, 3)
SEED = seeds.root(5)


@pytest.fixture(autouse=True)
def _fresh_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDTRAIN_CACHE_DIR", str(tmp_path))


def cohort(size=4, shape=(4,)):
    random = seeds.generator(seeds.root(2))
    return [
        CohortClient(
            f"client-{i}",
            Examples(
                features=random.normal(size=[6, *shape]).astype(np.float32),
                labels=random.integers(0, 3, 6),
            ),
            ((), ()),
        )
        for i in range(size)
    ]


def round_of(model=MODEL):
    return fed_avg(local_sgd(model, sgd(0.1), Epochs(batch_size=3)))


@pytest.fixture
def given_seconds(monkeypatch):
    """Seconds by strategy, in place of measured ones; stacked clients win."""
    seconds = {"graph": 1.0, "xla": 0.5, "stacked": 0.2, "stacked_xla": 0.3}

    real_probe = tuning._Bench.probe

    def timed(bench, execution):
        tried.append(execution)
        if execution == bench.default:
            real_probe(bench, execution)
        return seconds[execution.strategy] + 0.001 * execution.num_workers

    tried = []
    monkeypatch.setattr(tuning._Bench, "seconds", timed)
    monkeypatch.setattr(tuning._Bench, "probe", lambda *given: (1.0, None))
    monkeypatch.setattr(tuning, "_is_same", lambda *given: True)
    return tried


def after_one_round(runtime, round_, clients=None, num_rounds=1000):
    state = round_.init(MODEL.init(SEED))
    runtime.begin(round_, num_rounds=num_rounds)
    return runtime.run_round(round_, state, clients or cohort(), SEED)


def test_the_fastest_is_kept_and_said_in_one_line(given_seconds):
    lines = []
    runtime = CompiledRuntime(num_workers=2, tell=lines.append)
    round_ = round_of()
    after_one_round(runtime, round_)
    kept = runtime.execution(round_)
    assert (kept["strategy"], kept["num_workers"]) == ("stacked", 1), kept
    (line,) = lines
    assert line.startswith("Rounds run as stacked clients, one worker")
    assert "graph loop, 2 workers" in line
    assert "XLA loop" in line


def test_an_xla_loop_is_tried_on_as_many_parts_as_a_graph_loop(given_seconds):
    # The clients with most steps come first: in two parts, one worker would get them.
    after_one_round(CompiledRuntime(num_workers=2), round_of())
    sizes = {tried.strategy: tried.chunk_size for tried in reversed(given_seconds)}
    assert sizes["xla"] is sizes["graph"] is None


def test_what_was_found_is_remembered(given_seconds):
    first, second = (CompiledRuntime(num_workers=2) for _ in range(2))
    after_one_round(first, round_of())
    num_trials = len(given_seconds)
    round_ = round_of()
    after_one_round(second, round_)
    assert len(given_seconds) == num_trials
    assert second.execution(round_)["strategy"] == "stacked"


def refused(message):
    return tf.errors.UnimplementedError(None, None, message)


@pytest.mark.parametrize("error", [ConfigError, refused])
def test_what_was_remembered_of_other_work_is_tried_anew(
    given_seconds, monkeypatch, error
):
    probe = tuning._Bench.probe

    def refuse(bench, execution):
        if execution.strategy != "graph":
            raise error("cannot be stacked")
        return probe(bench, execution)

    first, second = (CompiledRuntime(num_workers=2) for _ in range(2))
    after_one_round(first, round_of())
    monkeypatch.setattr(tuning._Bench, "probe", refuse)
    round_ = round_of()
    after_one_round(second, round_)
    assert second.execution(round_)["strategy"] == "graph"


@pytest.mark.parametrize("way", ["_is_same", "_excluded"])
def test_what_was_remembered_is_used_only_if_it_would_be_kept(
    given_seconds, monkeypatch, way
):
    first, second = (CompiledRuntime(num_workers=2) for _ in range(2))
    after_one_round(first, round_of())
    answer = {"_is_same": False, "_excluded": dict.fromkeys(STRATEGIES[1:], "wrong")}
    monkeypatch.setattr(tuning, way, lambda *given: answer[way])
    round_ = round_of()
    after_one_round(second, round_)
    assert second.execution(round_)["strategy"] == "graph"


@pytest.mark.parametrize("content", ["no json", "[]", '{"x": {"strategy": "none"}}'])
def test_a_damaged_memory_is_no_memory(content, tmp_path):
    (tmp_path / "executions.json").write_text(content)
    assert remembered.recall("x") is None
    remembered.remember("x", Execution(chunk_size=3))
    assert remembered.recall("x") == Execution(
        chunk_size=3, intra_op_threads=intra_op_threads()
    )


def test_a_short_run_tries_nothing(given_seconds):
    lines = []
    runtime = CompiledRuntime(tell=lines.append)
    round_ = round_of()
    after_one_round(runtime, round_, num_rounds=3)
    assert given_seconds == []
    assert not lines
    assert runtime.execution(round_)["strategy"] == "graph"


def test_every_way_computes_the_same_two_steps():
    round_ = round_of()
    engine = Engine(round_)
    message = engine.broadcast(round_.init(MODEL.init(SEED)))
    bench = tuning._Bench(engine, message, cohort(), SEED, Execution())
    graph, *others = (
        bench.probe(Execution(strategy=strategy, chunk_size=4))[1]
        for strategy in STRATEGIES
    )
    assert all(tuning._is_same(other, graph) for other in others)
    longer = graph._replace(update=nests.scale(graph.update, 1.01))
    assert not tuning._is_same(longer, graph)


def test_a_told_strategy_is_not_questioned(given_seconds):
    runtime = CompiledRuntime(strategy="xla", chunk_size=2)
    after_one_round(runtime, round_of())
    assert given_seconds == []


def test_convolutions_stay_in_the_graph_loop(given_seconds):
    def forward(weights, features, *, training, seed):
        kernel = tf.ones([2, 2, 1, 1])
        features = tf.nn.conv2d(features, kernel, 1, "SAME")
        return MODEL.forward(
            weights, tf.reshape(features, [-1, 4]), training=training, seed=seed
        )

    lines = []
    runtime = CompiledRuntime(tell=lines.append)
    after_one_round(
        runtime, round_of(MODEL._replace(forward=forward)), cohort(shape=(2, 2, 1))
    )
    assert {execution.strategy for execution in given_seconds} == {"graph"}
    assert "XLA loop: convolutions" in lines[0]


def test_a_strategy_that_computes_something_else_is_dropped(given_seconds, monkeypatch):
    monkeypatch.setattr(tuning, "_is_same", lambda own, expected: False)
    lines = []
    runtime = CompiledRuntime(tell=lines.append)
    round_ = round_of()
    after_one_round(runtime, round_)
    assert runtime.execution(round_)["strategy"] == "graph"
    assert "stacked clients: computes another update" in lines[0]


def test_a_resumed_run_repeats_what_was_recorded(given_seconds):
    recorded = CompiledRuntime(strategy="stacked", chunk_size=3).execution(round_of())
    runtime = CompiledRuntime(num_workers=1)
    round_ = round_of()
    runtime.begin(round_, num_rounds=1000, recorded=json.loads(json.dumps(recorded)))
    runtime.run_round(round_, round_.init(MODEL.init(SEED)), cohort(), SEED)
    assert given_seconds == []
    assert runtime.execution(round_) == {**recorded, "num_workers": 1}


def test_other_threads_than_recorded_are_refused():
    recorded = Execution(intra_op_threads=intra_op_threads() + 7).as_dict()
    with pytest.raises(ConfigError, match="TF_NUM_INTRAOP_THREADS"):
        execution_from(recorded)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shards": 3}, "field 'shards'.*knows only strategy, chunk_size"),
        ({"precision": "float8"}, "precision"),
        ({"precision": "float16"}, "needs a GPU"),
    ],
)
def test_what_another_version_or_machine_recorded_is_refused_by_name(change, words):
    recorded = {**Execution(intra_op_threads=intra_op_threads()).as_dict(), **change}
    with pytest.raises(ConfigError, match=words):
        execution_from(recorded)


def test_trials_wait_for_clients_also_over_a_resume(given_seconds):
    round_ = round_of()
    state = round_.init(MODEL.init(SEED))
    before = CompiledRuntime()
    before.begin(round_, num_rounds=1000)
    before.run_round(round_, state, [], SEED)
    after = CompiledRuntime()
    recorded = json.loads(json.dumps(before.execution(round_)))
    after.begin(round_, num_rounds=999, recorded=recorded)
    after.run_round(round_, state, cohort(), SEED)
    assert given_seconds
    assert after.execution(round_)["strategy"] == "stacked"


def chunks_run(monkeypatch):
    """Hears how many chunks each cohort is run in."""
    heard = []
    run = Engine.run

    def listened(engine, message, packed, *rest):
        heard.append(len(packed.chunks))
        return run(engine, message, packed, *rest)

    monkeypatch.setattr(Engine, "run", listened)
    return heard


def test_a_prepared_cohort_changes_no_bit():
    round_, clients = round_of(), cohort()
    state = round_.init(MODEL.init(SEED))
    plain, prepared = CompiledRuntime(), CompiledRuntime()
    without_states = [client._replace(state=()) for client in clients]
    prepared.prepare(round_, without_states, SEED)
    (ready,) = prepared._prepared.values()
    results = [
        runtime.run_round(round_, state, clients, SEED) for runtime in (plain, prepared)
    ]
    assert len(ready.packed.chunks) == 4
    assert ready.serves(clients, Execution())
    assert not prepared._prepared
    for one, other in zip(*(tf.nest.flatten(r.state) for r in results), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_what_was_packed_to_be_run_otherwise_is_packed_anew(monkeypatch):
    heard = chunks_run(monkeypatch)
    round_, clients = round_of(), cohort()
    runtime = CompiledRuntime()
    runtime.prepare(round_, clients, SEED)
    recorded = Execution(chunk_size=2, intra_op_threads=intra_op_threads())
    runtime.begin(round_, num_rounds=9, recorded=recorded.as_dict())
    runtime.run_round(round_, round_.init(MODEL.init(SEED)), clients, SEED)
    assert heard == [2]


def test_rows_packed_ahead_are_not_used_for_other_rows_of_the_same_clients():
    round_, clients = round_of(), cohort()
    state = round_.init(MODEL.init(SEED))
    others = [
        client._replace(
            examples=Examples(
                features=client.examples.features + 1.0, labels=client.examples.labels
            )
        )
        for client in clients
    ]
    expected = CompiledRuntime().run_round(round_, state, others, SEED).state
    runtime = CompiledRuntime()
    runtime.prepare(round_, clients, SEED)
    actual = runtime.run_round(round_, state, others, SEED).state
    tf.nest.map_structure(np.testing.assert_array_equal, actual, expected)


def test_nothing_is_packed_ahead_before_the_trials_have_ended(
    given_seconds, monkeypatch
):
    round_, clients = round_of(), cohort()
    runtime = CompiledRuntime()
    timed = tuning._Bench.seconds

    def seconds(bench, execution):
        runtime.prepare(round_, clients, seeds.root(6))
        return timed(bench, execution)

    monkeypatch.setattr(tuning._Bench, "seconds", seconds)
    after_one_round(runtime, round_, clients)
    assert given_seconds
    assert not runtime._prepared


def test_a_record_ends_trials_that_were_still_due(given_seconds):
    round_ = round_of()
    runtime = CompiledRuntime()
    recorded = runtime.execution(round_)
    state = round_.init(MODEL.init(SEED))
    runtime.begin(round_, num_rounds=1000)
    runtime.run_round(round_, state, [], SEED)
    runtime.begin(round_, num_rounds=0, recorded=recorded)
    runtime.run_round(round_, state, cohort(), SEED)
    assert given_seconds == []
