import contextlib
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort, unweighted_mean
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.core.errors import BudgetExhaustedError, PrivacyError
from fedtrain.data.cohorts import (
    cyclic_sampler,
    full_participation,
    poisson_sampler,
    uniform_sampler,
)
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy import accounting, events
from fedtrain.privacy.adaptive_clipping import adaptive_gaussian_mechanism
from fedtrain.privacy.correlated_noise import banded_mechanism
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.gradient_sum import private_gradient_sum
from fedtrain.privacy.ledger import Ledger
from fedtrain.privacy.participation import Participation
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.rounds.async_run import AsyncRun
from fedtrain.rounds.checkpoint import CheckpointStore
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import averaging_round
from fedtrain.rounds.train_async import train_async

MODEL = dense_classifier(4, 3)
SEED = seeds.root(5)
CLIP, NOISE, GOAL = 0.05, 2.0, 2
TRAINING = local_sgd(MODEL, sgd(0.5), Epochs(batch_size=4), reports_metrics=False)
CENTRAL = fed_avg(
    TRAINING,
    aggregator=chain(
        mean_over_expected_cohort(GOAL),
        gaussian_mechanism(clipping_norm=CLIP, noise_multiplier=NOISE),
    ),
)
LOCAL = fed_avg(
    dp_sgd(
        MODEL,
        sgd(0.5),
        clipping_norm=CLIP,
        noise_multiplier=NOISE,
        sampling_rate=0.5,
        local_steps=2,
        expected_batch_size=3.0,
    ),
    aggregator=unweighted_mean(),
)
CENTRAL_PLAN = {
    "unit": "client",
    "trust": "central",
    "neighboring_relation": "replace_special",
    "delta": 1e-3,
    "sampling": "uniform",
    "num_units": 6,
    "num_clients": 6,
    "num_rounds": 8,
    "expected_count": float(GOAL),
    "clipping_norm": CLIP,
    "noise_multiplier": NOISE,
    "max_participations": 4,
    "accept_weak_privacy": True,
    "target_epsilon": None,
}
LOCAL_PLAN = CENTRAL_PLAN | {
    "unit": "example",
    "trust": "local",
    "neighboring_relation": "add_or_remove_one",
    "sampling": "poisson",
    "sampling_rate": 0.5,
    "local_steps": 2,
    "num_units": 36,
    "expected_count": 3.0,
}
SETTINGS = {"client": (CENTRAL, CENTRAL_PLAN), "row": (LOCAL, LOCAL_PLAN)}


def population(emptied=None):
    random = seeds.generator(seeds.root(2))
    clients = {}
    for i in range(6):
        features = random.normal(size=[6, 4]).astype(np.float32)
        labels = random.integers(0, 3, 6)
        rows = Examples(features=features, labels=labels)
        clients[f"client-{i}"] = rows.slice(0, 0) if i == emptied else rows
    return from_clients(clients, sensitivity="private")


@pytest.fixture
def private_run(tmp_path, disordered):
    def build(round_=CENTRAL, plan=CENTRAL_PLAN, sampler=None, run_id="run", **changes):
        given = {name: changes.pop(name) for name in plan.keys() & changes.keys()}
        sampler = sampler or uniform_sampler(cohort_size=3)
        privacy = RunPrivacy(
            plan=PrivacyPlan(**(plan | given)),
            mechanisms=round_.mechanisms,
            sampler=sampler,
            ledger=Ledger(tmp_path / "ledger.jsonl"),
            run_id=run_id,
        )
        run = AsyncRun(
            round_=round_,
            dataset=population(),
            sampler=sampler,
            executor=disordered(),
            num_rounds=8,
            buffer_goal=GOAL,
            concurrency=4,
            max_participations=privacy.plan.max_participations,
            seed=SEED,
            privacy=privacy,
        )
        return replace(run, **changes)

    return build


def first_state(round_=CENTRAL):
    return round_.init(MODEL.init(SEED))


def charged(run):
    return Ledger(run.privacy.ledger.path).spending.num_by_client()


@pytest.mark.parametrize("kind", SETTINGS)
def test_each_asking_is_charged_before_it_and_epsilon_is_that_of_the_most_asked(
    private_run, disordered, kind
):
    round_, plan = SETTINGS[kind]

    class Watched(disordered):
        def submit(self, work, message, client, seed):
            future = super().submit(work, message, client, seed)
            client_id = client.client_id
            paid = run.privacy.num_participations(client_id)
            assert paid == self.asked.count(client_id)
            return future

    executor = Watched()
    run = private_run(round_, plan, executor=executor)
    reports = train_async(run, first_state(round_)).reports
    asked = {client: executor.asked.count(client) for client in executor.asked}
    assert max(asked.values()) <= 4
    per_asking = sum(events.counted(run.privacy.round_event()).values())
    assert charged(run) == {client: n * per_asking for client, n in asked.items()}
    whole = events.times(run.privacy.round_event(), max(asked.values()))
    relation = plan["neighboring_relation"]
    expected = accounting.epsilon(
        whole, plan["delta"], relation, interval=accounting.QUICK
    )
    assert reports[-1].spent_epsilon == pytest.approx(expected)
    assert run.privacy.spent() <= run.privacy.plan.epsilon() + 1e-9


@pytest.mark.parametrize("every", [1, 100], ids=["saved", "nothing saved"])
def test_what_was_in_flight_stays_charged_and_bounds_hold_across_restarts(
    private_run, disordered, tmp_path, every
):
    class PowerCutError(Exception):
        pass

    def cut(report, state):
        if report.round_number == 2:
            raise PowerCutError

    store = CheckpointStore(tmp_path / "checkpoints", every=every)
    first, second = disordered(1), disordered(2)
    run = private_run(executor=first, on_round=[cut], checkpoints=store)
    with pytest.raises(PowerCutError):
        train_async(run, first_state())
    in_flight = len(first.asked) - 3 * GOAL
    assert in_flight > 0
    assert sum(charged(run).values()) == len(first.asked)
    again = private_run(executor=second, checkpoints=store)
    # Where all of the first start's work is lost, there may be nobody left at the end.
    with contextlib.suppress(BudgetExhaustedError):
        train_async(again, first_state())
    everyone = [*first.asked, *second.asked]
    assert charged(again) == {client: everyone.count(client) for client in everyone}
    assert max(charged(again).values()) <= 4


def test_an_emptied_client_moves_its_first_sum_by_the_clipping_norm_at_most(
    private_run, disordered, monkeypatch
):
    """Late or not; the start's random label is held, so both runs draw one noise."""
    monkeypatch.setattr("secrets.token_hex", lambda num: "00" * num)
    moved = []
    for emptied in (0, 3, 4):
        states = {}
        for which, dataset in (
            ("as is", population()),
            ("without", population(emptied)),
        ):
            states[which] = []
            run = private_run(
                dataset=dataset,
                executor=disordered(7),
                run_id=f"{which}-{emptied}",
                on_round=[lambda report, s, to=states[which]: to.append(s)],
            )
            train_async(run, first_state())
        apart = [distance(a, b) for a, b in zip(*states.values(), strict=True)]
        moved.append(next((d for d in apart if d > 0), 0.0))
    assert max(moved) > 0.2 * CLIP / GOAL
    assert max(moved) <= CLIP / GOAL * (1.0 + 1e-4)


def distance(left, right):
    pairs = zip(
        tf.nest.flatten(left.weights), tf.nest.flatten(right.weights), strict=True
    )
    return float(np.sqrt(sum(np.sum(np.square(a - b)) for a, b in pairs)))


def test_no_two_starts_draw_the_same_noise(private_run, disordered):
    """Else the same noise on other sums would cancel in their difference."""
    ends = [
        train_async(
            private_run(run_id=name, executor=disordered(1)), first_state()
        ).state
        for name in ("a", "b")
    ]
    assert distance(*ends) > 0.1 * CLIP * NOISE / GOAL


def test_at_the_budget_no_more_rows_are_used(private_run, disordered):
    executor = disordered()
    run = private_run(executor=executor, target_epsilon=3.0)
    with pytest.raises(BudgetExhaustedError, match="above the budget"):
        train_async(run, first_state())
    assert sum(charged(run).values()) == len(executor.asked)
    assert run.privacy.spent() <= 3.0


def test_clients_without_rows_are_asked_like_the_others(private_run, disordered):
    executor = disordered()
    dataset = population(emptied=3)
    train_async(private_run(executor=executor, dataset=dataset), first_state())
    assert "client-3" in executor.asked


def adaptive_round():
    return fed_avg(
        TRAINING,
        aggregator=chain(
            mean_over_expected_cohort(100),
            adaptive_gaussian_mechanism(
                initial_clipping_norm=CLIP,
                noise_multiplier=NOISE,
                expected_cohort_size=100,
            ),
        ),
    )


def banded_round():
    pattern = Participation(num_rounds=8, min_separation=2, max_participations=4)
    mechanism = banded_mechanism(
        clipping_norm=CLIP, noise_multiplier=NOISE, participation=pattern
    )
    stages = chain(mean_over_expected_cohort(GOAL), mechanism)
    return fed_avg(TRAINING, aggregator=stages)


def entity_round():
    work, aggregator = private_gradient_sum(
        MODEL,
        clipping_norm=CLIP,
        noise_multiplier=NOISE,
        sampling_rate=0.5,
        expected_count=3.0,
        unit="entity",
        max_clients_per_entity=2,
    )
    return averaging_round(
        work, aggregator=aggregator, server_optimizer=sgd(1.0), name="entities"
    )


REFUSED = {
    "no bound": ({"max_participations": None}, "max_participations is None"),
    "beyond the plan": ({"max_participations": 9}, "made for 8"),
    "adaptive clipping": ({"round_": adaptive_round()}, "numbered rounds"),
    "amplification": (
        {"sampler": poisson_sampler(sampling_rate=0.5, cohort_is_hidden=True)},
        "claims amplification",
    ),
    "add or remove": (
        {"neighboring_relation": "add_or_remove_one"},
        "another takes its place",
    ),
    "entities at several clients": (
        {
            "round_": entity_round(),
            "plan": LOCAL_PLAN
            | {
                "unit": "entity",
                "trust": "central",
                "local_steps": 1,
                "max_clients_per_entity": 2,
            },
        },
        "max_clients_per_entity",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_break_the_promise_is_refused(private_run, case):
    changes, message = REFUSED[case]
    if "max_participations" in changes:
        run = private_run(max_participations=4)
        wider = replace(
            run.privacy, plan=replace(run.privacy.plan, max_participations=8)
        )
        bound = changes["max_participations"]
        with pytest.raises(PrivacyError, match=message):
            replace(run, privacy=wider, max_participations=bound)
    else:
        with pytest.raises(PrivacyError, match=message):
            private_run(**changes)


def test_correlated_noise_is_refused(private_run):
    sampler = cyclic_sampler(cohort_size=2, min_separation=2)
    plan = CENTRAL_PLAN | {"sampling": "cyclic"}
    with pytest.raises(PrivacyError, match="numbered rounds"):
        private_run(banded_round(), plan, sampler)


def test_noise_that_relies_on_secure_aggregation_is_refused(private_run):
    (mechanism,) = CENTRAL.mechanisms
    shared = CENTRAL._replace(mechanisms=(replace(mechanism, trust="distributed"),))
    with pytest.raises(PrivacyError, match="secure aggregation"):
        replace(private_run(), round_=shared)


def test_a_mechanism_without_a_ledger_is_refused(private_run):
    with pytest.raises(PrivacyError, match="charge the ledger"):
        replace(private_run(), privacy=None)


def test_a_participation_beyond_the_plan_is_refused_by_the_ledger(private_run):
    privacy = private_run(sampler=full_participation()).privacy
    for number in range(4):
        privacy.before_participation("client-0", f"asking {number}")
    with pytest.raises(PrivacyError, match="taken part 4 times"):
        privacy.before_participation("client-0", "asking 4")


def test_two_processes_cannot_charge_one_run_at_once(private_run):
    first, second = private_run().privacy, private_run().privacy
    first.before_participation("client-0", "first")
    with pytest.raises(PrivacyError, match="Another process"):
        second.before_participation("client-0", "second")
