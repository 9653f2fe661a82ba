"""Credit default over FATE's three parties: what example-level privacy costs.

Three institutions of 8,000 customers each train a network with one hidden layer. With
privacy, each runs DP-SGD on its own rows, adds the full noise and trusts nobody: unit
example, trust local, add-or-remove-one, delta 1e-5, Poisson batches. Beside it: the
same training without privacy, all rows in one place, and each party alone, with as many
passes over the rows.

There is no published federated figure for this split; the rows are compared with each
other.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Poisson
from fedtrain.client_work.client_work import ClientWork
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import nests, seeds
from fedtrain.data.cohorts import full_participation
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples
from fedtrain.data.sets import load
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.ledger import Ledger
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.train import TrainingRun
from fedtrain.runtimes.compiled import CompiledRuntime
from simulations import experiment
from simulations.experiment import Expected, Scores

# ROC-AUC as first measured: nothing is published for this split.
FIRST_MEASURED = {
    "centralised": Expected(0.773, 0.01),
    "federated": Expected(0.775, 0.01),
    "federated_epsilon_1": Expected(0.746, 0.01),
    "federated_epsilon_3": Expected(0.765, 0.01),
    "federated_epsilon_8": Expected(0.767, 0.01),
    "local_guest": Expected(0.768, 0.01),
    "local_host_1": Expected(0.760, 0.01),
    "local_host_2": Expected(0.761, 0.01),
}
SCORES = ("roc_auc", "pr_auc", "ks", "brier", "calibration_error")
_MODEL = dense_classifier(23, 2, hidden=(32,))
_PARTY_ROWS, _NUM_PARTIES = 8_000, 3
_BATCH_SIZE, _LOCAL_STEPS = 256, 30
_LEARNING_RATE, _CLIPPING_NORM, _DELTA = 0.5, 4.0, 1e-5
_EPSILONS = (1.0, 3.0, 8.0)
_LARGEST_FEATURE = 5.0


class Method(NamedTuple):
    """One row of the table: a round, whose rows, and the promise it keeps (or none)."""

    round_: Round
    dataset: FederatedDataset
    plan: PrivacyPlan | None = None


def main() -> None:
    """Runs the trials that are not done yet and prints the table."""
    given = experiment.arguments(
        __doc__, name="credit_default", num_seeds=5, num_rounds=20
    )
    split = load("credit_default", seed=0)
    test = bounded(split.test)
    train = replace(split.train, examples=bounded(split.train.examples))
    runtime = CompiledRuntime(chunk_size=1)
    score = partial(_scores, Evaluator(_MODEL), test)
    trials = {
        name: [
            experiment.remembered(
                given.output / name / f"seed_{seed}",
                partial(_measure, method, given.rounds, runtime, seed, score),
            )
            for seed in range(given.seeds)
        ]
        for name, method in methods(train, given.rounds).items()
        if name in given.only or not given.only
    }
    experiment.report(given.output, "credit_default", _table(trials), trials)


def bounded(examples: Examples) -> Examples:
    """Standardised columns cut at ±5: a bound declared without looking at the data."""
    cut = np.clip(examples.features, -_LARGEST_FEATURE, _LARGEST_FEATURE)
    return replace(examples, features=cut)


def methods(train: FederatedDataset, num_rounds: int) -> dict[str, Method]:
    """The rows of the table; all with the same optimizer, batches and passes."""
    rate = _BATCH_SIZE / _PARTY_ROWS
    plain = fed_avg(_plain_work(rate, _LOCAL_STEPS))
    pooled = fed_avg(_plain_work(rate / _NUM_PARTIES, _NUM_PARTIES * _LOCAL_STEPS))
    found = {
        "centralised": Method(pooled, experiment.alone(train.examples)),
        "federated": Method(plain, train),
    }
    for epsilon in _EPSILONS:
        plan = plan_for(epsilon, num_rounds)
        found[f"federated_epsilon_{epsilon:g}"] = Method(private(plan), train, plan)
    for position in range(train.num_clients):
        rows = experiment.alone(train.client(position))
        found[f"local_{train.client_id(position)}"] = Method(plain, rows)
    return found


def plan_for(target_epsilon: float, num_rounds: int) -> PrivacyPlan:
    """What a customer is promised; the noise is solved for."""
    return PrivacyPlan(
        unit="example",
        trust="local",
        neighboring_relation="add_or_remove_one",
        delta=_DELTA,
        sampling="poisson",
        num_units=_NUM_PARTIES * _PARTY_ROWS,
        num_clients=_NUM_PARTIES,
        num_rounds=num_rounds,
        expected_count=_BATCH_SIZE,
        clipping_norm=_CLIPPING_NORM,
        target_epsilon=target_epsilon,
        sampling_rate=_BATCH_SIZE / _PARTY_ROWS,
        local_steps=_LOCAL_STEPS,
        num_weights=nests.num_weights(_MODEL.init(seeds.root(0))),
    ).calibrated()


def private(plan: PrivacyPlan) -> Round:
    """DP-SGD inside each party, and the plain mean of the three."""
    # A plan without noise yet would give 0, which DP-SGD refuses.
    work = dp_sgd(
        _MODEL,
        sgd(_LEARNING_RATE),
        clipping_norm=plan.clipping_norm,
        noise_multiplier=plan.noise_multiplier or 0.0,
        sampling_rate=plan.sampling_rate,
        local_steps=plan.local_steps,
        expected_batch_size=plan.expected_count,
    )
    return fed_avg(work, aggregator=mean_over_expected_cohort(_NUM_PARTIES))


def _plain_work(sampling_rate: float, local_steps: int) -> ClientWork:
    batching = Poisson(sampling_rate=sampling_rate, local_steps=local_steps)
    return local_sgd(_MODEL, sgd(_LEARNING_RATE), batching)


def _measure(
    method: Method,
    num_rounds: int,
    runtime: CompiledRuntime,
    seed: int,
    score: "partial[Scores]",
    folder: Path,
) -> Scores:
    root = seeds.root(seed)
    sampler = full_participation()
    privacy = None
    if method.plan is not None:
        privacy = RunPrivacy(
            plan=method.plan,
            mechanisms=method.round_.mechanisms,
            sampler=sampler,
            ledger=Ledger(folder / "ledger.jsonl"),
            run_id=folder.name,
            is_private=False,
        )
    run = TrainingRun(
        round_=method.round_,
        dataset=method.dataset,
        sampler=sampler,
        runtime=runtime,
        num_rounds=num_rounds,
        seed=root,
        privacy=privacy,
    )
    first = method.round_.init(_MODEL.init(seeds.derive(root, "weights")))
    scores = score(experiment.trained(run, first, folder))
    return scores if privacy is None else {**scores, "epsilon": privacy.spent()}


def _scores(evaluator: Evaluator, test: Examples, state: ServerState) -> Scores:
    scores = evaluator.evaluate(state.weights, test)
    logits = evaluator.predict(state.weights, test)
    return scores | {"calibration_error": calibration_error(test.labels, logits)}


def calibration_error(labels: Any, logits: Any, *, num_bins: int = 10) -> float:
    """Mean distance of predicted from observed default rate over bins of equal size."""
    probability = softmax(np.asarray(logits, np.float64), axis=1)[:, 1]
    bins = np.array_split(np.argsort(probability, kind="stable"), num_bins)
    distances = [abs(probability[rows].mean() - labels[rows].mean()) for rows in bins]
    return float(np.average(distances, weights=[len(rows) for rows in bins]))


def _table(trials: Mapping[str, list[Scores]]) -> str:
    rows = []
    for name, of_seeds in trials.items():
        spent = of_seeds[0].get("epsilon")
        cells = [
            "{:.4f} ± {:.4f}".format(*experiment.mean_and_sd(of_seeds, score))
            for score in SCORES
        ]
        mean, _ = experiment.mean_and_sd(of_seeds, "roc_auc")
        repeated = experiment.repeated(mean, FIRST_MEASURED[name])
        epsilon = "none" if spent is None else f"{spent:.3f}"
        rows.append(
            [name, epsilon, *cells, f"{FIRST_MEASURED[name].mean:.3f}", repeated]
        )
    header = ["method", "epsilon", *SCORES, "first roc_auc", "repeated"]
    return experiment.table(header, rows)


if __name__ == "__main__":
    main()
