import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.fixed_point import FixedPoint
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.core.errors import BudgetExhaustedError
from fedtrain.data.cohorts import uniform_sampler
from fedtrain.data.dataset import FederatedDataset, from_clients
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy import accounting, events
from fedtrain.privacy.fixed_point_sum import fixed_point_sum
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.privacy.ledger import Ledger
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.rounds.ahead import ReadingAhead
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.train import TrainingRun, train
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime

MODEL = dense_classifier(4, 3)
SEED = seeds.root(5)
WORK = local_sgd(MODEL, sgd(0.1), Epochs(batch_size=4), reports_metrics=False)
ROUND = fed_avg(WORK)
PRIVATE = fed_avg(
    WORK,
    aggregator=chain(
        mean_over_expected_cohort(3),
        gaussian_mechanism(clipping_norm=1.0, noise_multiplier=1.0),
    ),
)
SAMPLER = uniform_sampler(cohort_size=3)


class WatchedData(FederatedDataset):
    """Tells whose rows were read, by which thread."""

    def clients(self, positions):
        self.info["read"].append((tuple(positions), threading.current_thread().name))
        if len(self.info["read"]) == self.info.get("breaks_at"):
            raise OSError("the disk is gone")
        return super().clients(positions)


def population(**info):
    random = seeds.generator(seeds.root(2))
    data = from_clients(
        {
            f"client-{i}": Examples(
                features=random.normal(size=[size, 4]).astype(np.float32),
                labels=random.integers(0, 3, size),
            )
            for i, size in enumerate([5, 9, 0, 7, 3, 8])
        },
        sensitivity="public",
    )
    return WatchedData(**vars(data) | {"info": {"read": []} | info})


class Hinted:
    """A runtime that can be told about the next round; notes what it is told."""

    def __init__(self):
        self.inner = EagerRuntime()
        self.heard = []

    def begin(self, round_, *, num_rounds, recorded=None):
        self.heard.append(("begin", num_rounds))

    def execution(self, round_):
        return {}

    def prepare(self, round_, cohort, seed):
        self.heard.append(("prepare", _names(cohort)))

    def run_round(self, round_, state, cohort, seed):
        self.heard.append(("run", _names(cohort)))
        return self.inner.run_round(round_, state, cohort, seed)


def _names(cohort):
    return tuple(client.client_id for client in cohort)


def run_with(**changes):
    run = TrainingRun(
        round_=ROUND,
        dataset=population(),
        sampler=SAMPLER,
        runtime=Hinted(),
        num_rounds=4,
        seed=SEED,
    )
    return replace(run, **changes)


def privacy(tmp_path, *, reserve_rounds=1, **changes):
    settings = {
        "unit": "client",
        "trust": "central",
        "neighboring_relation": "add_or_remove_one",
        "delta": 1e-3,
        "sampling": "uniform",
        "num_units": 6,
        "num_clients": 6,
        "num_rounds": 4,
        "expected_count": 3.0,
        "clipping_norm": 1.0,
        "noise_multiplier": 1.0,
        "accept_weak_privacy": True,
    }
    return RunPrivacy(
        plan=PrivacyPlan(**settings | changes),
        mechanisms=PRIVATE.mechanisms,
        sampler=SAMPLER,
        ledger=Ledger(tmp_path / "ledger.jsonl"),
        run_id="run",
        is_private=False,
        reserve_rounds=reserve_rounds,
    )


def trained(run):
    return train(run, run.round_.init(MODEL.init(SEED)))


def threads_left():
    return [t for t in threading.enumerate() if t.name.startswith("fedtrain-read")]


def test_the_next_cohort_is_read_by_another_thread_and_told_to_the_runtime():
    run = run_with()
    trained(run)
    heard = run.runtime.heard
    told = [names for what, names in heard if what == "prepare"]
    ran = [names for what, names in heard if what == "run"]
    assert told == ran[1:]
    first, *others = run.dataset.info["read"]
    assert first[1] == threading.current_thread().name
    assert len(others) == 3
    assert all(name.startswith("fedtrain-read-ahead") for _, name in others)
    assert not threads_left()


def test_weights_are_the_same_with_and_without_reading_ahead():
    states = [
        trained(run_with(runtime=runtime)).state.weights
        for runtime in (EagerRuntime(), Hinted())
    ]
    tf.nest.map_structure(np.testing.assert_array_equal, *states)


def test_the_compiled_runtime_gives_the_same_bits_when_it_packs_ahead():
    class NeverAhead(CompiledRuntime):
        def prepare(self, round_, cohort, seed):
            pass

    states = [
        trained(run_with(runtime=runtime)).state.weights
        for runtime in (CompiledRuntime(strategy="graph"), NeverAhead(strategy="graph"))
    ]
    tf.nest.map_structure(np.testing.assert_array_equal, *states)


def test_what_fails_while_reading_ahead_is_raised_by_the_round_it_belongs_to():
    run = run_with(dataset=population(breaks_at=3))
    with pytest.raises(OSError, match="the disk is gone"):
        trained(run)
    assert [what for what, _ in run.runtime.heard].count("run") == 2
    assert not threads_left()


def test_an_interruption_leaves_no_thread():
    def interrupt(report, state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(run_with(on_round=[interrupt]))
    assert not threads_left()


def test_a_round_beyond_the_budget_is_not_read_ahead(tmp_path):
    one, two = (
        accounting.epsilon(
            events.times(events.gaussian(1.0), n), 1e-3, "add_or_remove_one"
        )
        for n in (1, 2)
    )
    keeper = privacy(tmp_path, target_epsilon=(one + two) / 2)
    run = run_with(round_=PRIVATE, privacy=keeper, sampler=SAMPLER)
    with pytest.raises(BudgetExhaustedError):
        trained(run)
    num_run = [what for what, _ in run.runtime.heard].count("run")
    assert 0 < num_run < 4
    assert len(run.dataset.info["read"]) == num_run


def test_reserved_rounds_are_charged_in_one_go_and_change_no_weights(tmp_path):
    (tmp_path / "b").mkdir()
    one_by_one = privacy(tmp_path)
    in_one_go = privacy(tmp_path / "b", reserve_rounds=3)
    states, syncs = [], []
    for keeper in (one_by_one, in_one_go):
        lengths = []
        result = trained(
            run_with(
                round_=PRIVATE,
                privacy=keeper,
                on_round=[lambda *_, k=keeper, n=lengths: n.append(k.head()["length"])],
            )
        )
        states.append(result.state.weights)
        syncs.append(lengths)
    assert syncs == [[1, 2, 3, 4], [3, 3, 3, 4]]
    tf.nest.map_structure(np.testing.assert_array_equal, *states)
    assert one_by_one.spent() == in_one_go.spent()


@pytest.mark.parametrize(("trust", "num_read"), [("distributed", 6), ("central", 5)])
def test_clients_without_rows_add_their_share_of_the_noise(trust, num_read):
    noise = IntegerGaussian(
        unit="client",
        trust=trust,
        clipping_norm=1.0,
        noise_multiplier=0.5,
        grid=FixedPoint(num_weights=15),
        num_rounds=1,
        num_clients=6,
        num_honest=4 if trust == "distributed" else 1,
    )
    stages = chain(mean_over_expected_cohort(6), fixed_point_sum(noise))
    noised = fed_avg(WORK, aggregator=stages)
    run = SimpleNamespace(
        round_=noised,
        dataset=population(),
        sampler=uniform_sampler(cohort_size=6),
        seed=SEED,
        runtime=Hinted(),
    )
    with ReadingAhead(run) as ahead:
        assert len(ahead.rows(ahead.drawn(0))) == num_read
