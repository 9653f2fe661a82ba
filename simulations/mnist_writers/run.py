"""MNIST by writer: 539 writers train, 297 others test; then client-level privacy.

Without privacy: FedAvg and FedAdam with cohorts of 50 writers, beside all rows in one
place and beside writers who train alone.

With privacy (unit client, trust central, add-or-remove-one, delta 1e-4): every writer
takes part in every round. For a given epsilon and number of rounds the signal to noise
of the mean is highest then (see the README), no secret cohort has to be assumed, and no
amplification is claimed. 539 clients are fewer than 1,000, which has to be accepted
explicitly.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.client_work import ClientWork
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import nests, seeds
from fedtrain.data.cohorts import CohortSampler, full_participation, uniform_sampler
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples
from fedtrain.data.sets import load
from fedtrain.optimizers.adaptive import adam
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.ledger import Ledger
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.train import TrainingRun
from fedtrain.runtimes.compiled import CompiledRuntime
from simulations import experiment
from simulations.convolutional import convolutional_classifier
from simulations.experiment import Expected, Scores

# Accuracy as first measured: nothing is published for this split.
FIRST_MEASURED = {
    "fed_avg": Expected(0.976, 0.01),
    "fed_adam": Expected(0.982, 0.01),
    "centralised": Expected(0.988, 0.01),
    "everyone_no_privacy": Expected(0.951, 0.01),
    "everyone_epsilon_8": Expected(0.942, 0.01),
    "everyone_epsilon_2": Expected(0.903, 0.01),
    "local_only": Expected(0.647, 0.01),
}
_MODEL = convolutional_classifier(filters=(8, 16))
_NUM_WRITERS, _DELTA = 539, 1e-4
_CLIPPING_NORMS = {8.0: 1.0, 2.0: 0.5}  # by epsilon: more noise, smaller steps
_PRIVATE_ROUNDS = 25
_LONE_WRITERS, _LONE_EPOCHS = 20, 30


class Method(NamedTuple):
    """One row of the table: a round, its cohorts, and the promise it keeps, if any."""

    round_: Round
    dataset: FederatedDataset
    sampler: CohortSampler
    num_rounds: int
    plan: PrivacyPlan | None = None


class Bench(NamedTuple):
    """What every trial needs."""

    runtime: CompiledRuntime
    evaluator: Evaluator
    test: Examples


def main() -> None:
    """Runs the trials that are not done yet and prints the table."""
    given = experiment.arguments(
        __doc__, name="mnist_writers", num_seeds=3, num_rounds=100
    )
    split = load("mnist", seed=0)
    bench = Bench(CompiledRuntime(), Evaluator(_MODEL), split.test)
    measures = {
        name: partial(_measure, method, bench)
        for name, method in methods(split.train, given.rounds).items()
    }
    measures["local_only"] = partial(_measure_alone, split.train, bench)
    trials = {
        name: [
            experiment.remembered(
                given.output / name / f"seed_{seed}", partial(measure, seed)
            )
            for seed in range(given.seeds if name.startswith("fed_a") else 1)
        ]
        for name, measure in measures.items()
        if name in given.only or not given.only
    }
    experiment.report(given.output, "mnist_writers", _table(trials), trials)


def methods(train: FederatedDataset, num_rounds: int) -> dict[str, Method]:
    """FedAvg, FedAdam, pooled training, and FedAvg with everyone, noised and not."""
    fifty, everyone = uniform_sampler(cohort_size=50), full_participation()
    quick = fed_avg(_work(0.2, batch_size=10))
    adaptive = fed_avg(_work(0.05, batch_size=10), server_optimizer=adam(0.03))
    lone = fed_avg(_work(0.05, batch_size=10))
    pooled = experiment.alone(train.examples)
    private_rounds = min(_PRIVATE_ROUNDS, num_rounds)
    unweighted = fed_avg(
        _private_work(), aggregator=mean_over_expected_cohort(_NUM_WRITERS)
    )
    found = {
        "fed_avg": Method(quick, train, fifty, num_rounds),
        "fed_adam": Method(adaptive, train, fifty, num_rounds),
        "centralised": Method(lone, pooled, everyone, 5),
        "everyone_no_privacy": Method(unweighted, train, everyone, private_rounds),
    }
    for epsilon in _CLIPPING_NORMS:
        plan = plan_for(epsilon, private_rounds)
        found[f"everyone_epsilon_{epsilon:g}"] = Method(
            private(plan), train, everyone, private_rounds, plan
        )
    return found


def plan_for(target_epsilon: float, num_rounds: int) -> PrivacyPlan:
    """What a writer is promised; the noise is solved for."""
    return PrivacyPlan(
        unit="client",
        trust="central",
        neighboring_relation="add_or_remove_one",
        delta=_DELTA,
        sampling="full",
        num_units=_NUM_WRITERS,
        num_clients=_NUM_WRITERS,
        num_rounds=num_rounds,
        expected_count=_NUM_WRITERS,
        clipping_norm=_CLIPPING_NORMS[target_epsilon],
        target_epsilon=target_epsilon,
        accept_weak_privacy=True,
        num_weights=nests.num_weights(_MODEL.init(seeds.root(0))),
    ).calibrated()


def private(plan: PrivacyPlan) -> Round:
    """Each writer's update clipped, the sum noised, divided by a public number."""
    # A plan without noise yet would give 0, which the mechanism refuses.
    mechanism = gaussian_mechanism(
        clipping_norm=plan.clipping_norm, noise_multiplier=plan.noise_multiplier or 0.0
    )
    aggregator = chain(mean_over_expected_cohort(plan.expected_count), mechanism)
    return fed_avg(_private_work(), aggregator=aggregator)


def _private_work() -> ClientWork:
    return _work(0.3, batch_size=20)


def _work(learning_rate: float, *, batch_size: int) -> ClientWork:
    batching = Epochs(batch_size=batch_size)
    return local_sgd(_MODEL, sgd(learning_rate), batching, reports_metrics=False)


def _measure(method: Method, bench: Bench, seed: int, folder: Path) -> Scores:
    root = seeds.root(seed)

    def evaluate(state: ServerState) -> Scores:
        scores = bench.evaluator.evaluate(state.weights, bench.test)
        return {f"test_{metric}": value for metric, value in scores.items()}

    run = TrainingRun(
        round_=method.round_,
        dataset=method.dataset,
        sampler=method.sampler,
        runtime=bench.runtime,
        num_rounds=method.num_rounds,
        seed=root,
        privacy=_promise(method, folder),
        evaluate=evaluate,
        evaluate_every=5,
    )
    first = method.round_.init(_MODEL.init(seeds.derive(root, "weights")))
    experiment.trained(run, first, folder, save_every=5)
    rows = [row for row in experiment.curve(folder) if "test_accuracy" in row]
    scores = {f"round_{row['round']}": row["test_accuracy"] for row in rows}
    scores["test_accuracy"] = rows[-1]["test_accuracy"]
    return scores if run.privacy is None else {**scores, "epsilon": run.privacy.spent()}


def _promise(method: Method, folder: Path) -> RunPrivacy | None:
    if method.plan is None:
        return None
    return RunPrivacy(
        plan=method.plan,
        mechanisms=method.round_.mechanisms,
        sampler=method.sampler,
        ledger=Ledger(folder / "ledger.jsonl"),
        run_id=folder.name,
        is_private=False,
    )


def _measure_alone(
    train: FederatedDataset, bench: Bench, seed: int, folder: Path
) -> Scores:
    """The mean over evenly spaced writers who train on their own rows only."""
    positions = np.linspace(0, train.num_clients - 1, _LONE_WRITERS).astype(int)
    batching = Epochs(batch_size=10, local_epochs=_LONE_EPOCHS)
    round_ = fed_avg(local_sgd(_MODEL, sgd(0.1), batching))
    alone = [experiment.alone(train.client(position)) for position in positions]
    lone_methods = [Method(round_, rows, full_participation(), 1) for rows in alone]
    accuracies = [
        _measure(method, bench, seed, folder / f"writer_{position}")["test_accuracy"]
        for method, position in zip(lone_methods, positions, strict=True)
    ]
    return {"test_accuracy": float(np.mean(accuracies))}


def _table(trials: Mapping[str, list[Scores]]) -> str:
    shown = [f"round_{number}" for number in (5, 10, 15, 20, 25, 50)]
    rows = []
    for name, of_seeds in trials.items():
        spent = of_seeds[0].get("epsilon")
        curve = [f"{of_seeds[0][r]:.4f}" if r in of_seeds[0] else "" for r in shown]
        mean, sd = experiment.mean_and_sd(of_seeds, "test_accuracy")
        epsilon = "none" if spent is None else f"{spent:.3f}"
        last = f"{mean:.4f} ± {sd:.4f} ({len(of_seeds)})"
        first = f"{FIRST_MEASURED[name].mean:.3f}"
        repeated = experiment.repeated(mean, FIRST_MEASURED[name])
        rows.append([name, epsilon, *curve, last, first, repeated])
    header = ["method", "epsilon", *shown, "last round (seeds)", "first", "repeated"]
    return experiment.table(header, rows)


if __name__ == "__main__":
    main()
