"""Fed-Heart-Disease: four hospitals, against FLamby's table.

The protocol is FLamby's: logistic regression, batches of 4, every hospital in each of
15 rounds of 100 local updates, means weighted by rows, and its learning rates. It
scores every model twice: on each hospital's test rows, normalised as that hospital's
training rows are, and on all test rows, normalised as all training rows together.

Source: Ogier du Terrail et al. (2022), https://arxiv.org/abs/2210.04620; the figures
are means and standard deviations of the five seeds in FLamby's own result tables.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fedtrain.client_work.batching import Epochs, Steps
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.data.cohorts import full_participation
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.sets import DataSplit, load
from fedtrain.data.sets.heart_disease import HOSPITALS
from fedtrain.models.model import Model
from fedtrain.optimizers.adaptive import adagrad, adam, yogi
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.fed_avg import fed_avg, fed_prox
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.train import TrainingRun
from fedtrain.runtimes.compiled import CompiledRuntime
from simulations import experiment
from simulations.experiment import Expected, Scores
from simulations.heart_disease.model import logistic_regression

PUBLISHED = {
    "pooled": Expected(0.795, 0.003),
    "fed_avg": Expected(0.748, 0.027),
    "fed_prox": Expected(0.748, 0.027),
    "fed_adam": Expected(0.779, 0.015),
    "fed_yogi": Expected(0.779, 0.015),
    "fed_adagrad": Expected(0.779, 0.015),
    "local_cleveland": Expected(0.784, 0.007),
    "local_hungarian": Expected(0.727, 0.013),
    "local_switzerland": Expected(0.483, 0.045),
    "local_va": Expected(0.611, 0.039),
}
_LOCAL_STEPS, _BATCH_SIZE, _POOLED_EPOCHS = 100, 4, 50


class Method(NamedTuple):
    """One row of the table: a round, whose rows, and for how many rounds."""

    round_: Round
    dataset: FederatedDataset
    num_rounds: int


class Hospitals(NamedTuple):
    """The data under FLamby's two normalisations."""

    own: DataSplit
    pooled: DataSplit


def main() -> None:
    """Runs the trials that are not done yet and prints the table."""
    given = experiment.arguments(
        __doc__, name="heart_disease", num_seeds=5, num_rounds=15
    )
    hospitals = Hospitals(
        own=load("heart_disease", seed=0),
        pooled=load("heart_disease", seed=0, normalisation="pooled"),
    )
    model = logistic_regression(13)
    score = partial(_scores, Evaluator(model), hospitals)
    runtime = CompiledRuntime(num_workers=1)
    trials = {
        name: [
            experiment.remembered(
                given.output / name / f"seed_{seed}",
                partial(_measure, model, method, runtime, seed, score),
            )
            for seed in range(given.seeds)
        ]
        for name, method in methods(model, hospitals, given.rounds).items()
        if name in (given.only or PUBLISHED)
    }
    experiment.report(given.output, "heart_disease", _table(trials), trials)


def methods(model: Model, hospitals: Hospitals, num_rounds: int) -> dict[str, Method]:
    """The rows of the table, with FLamby's learning rates."""
    steps = Steps(batch_size=_BATCH_SIZE, local_steps=_LOCAL_STEPS)
    slow, middle, fast = (
        local_sgd(model, sgd(rate), steps) for rate in (1e-3, 3.162e-3, 1e-2)
    )
    moments: Any = {"beta_1": 0.9, "epsilon": 1e-8}
    rounds = {
        "fed_avg": fed_avg(slow),
        "fed_prox": fed_prox(model, sgd(1e-3), steps, proximal_strength=0.01),
        "fed_adam": fed_avg(fast, server_optimizer=adam(1e-2, beta_2=0.999, **moments)),
        "fed_yogi": fed_avg(
            middle, server_optimizer=yogi(1e-2, beta_2=0.999, **moments)
        ),
        "fed_adagrad": fed_avg(middle, server_optimizer=adagrad(0.316228, **moments)),
    }
    own = hospitals.own.train
    found = {name: Method(round_, own, num_rounds) for name, round_ in rounds.items()}
    lone = _lone_round(model)
    found["pooled"] = Method(lone, experiment.alone(hospitals.pooled.train.examples), 1)
    for position, hospital in enumerate(HOSPITALS):
        rows = experiment.alone(own.client(position))
        found[f"local_{hospital}"] = Method(lone, rows, 1)
    return found


def _lone_round(model: Model) -> Round:
    """50 passes with Adam over one client's rows: pooled and local training."""
    optimizer = adam(1e-3, beta_2=0.999, epsilon=1e-8, bias_correction=True)
    passes = Epochs(batch_size=_BATCH_SIZE, local_epochs=_POOLED_EPOCHS)
    return fed_avg(local_sgd(model, optimizer, passes))


def _measure(
    model: Model,
    method: Method,
    runtime: CompiledRuntime,
    seed: int,
    score: "partial[Scores]",
    folder: Path,
) -> Scores:
    root = seeds.root(seed)
    run = TrainingRun(
        round_=method.round_,
        dataset=method.dataset,
        sampler=full_participation(),
        runtime=runtime,
        num_rounds=method.num_rounds,
        seed=root,
    )
    weights = model.init(seeds.derive(root, "weights"))
    return score(experiment.trained(run, method.round_.init(weights), folder))


def _scores(evaluator: Evaluator, hospitals: Hospitals, state: ServerState) -> Scores:
    tests: Any = hospitals.own.test_clients
    by_hospital = evaluator.evaluate_clients(state.weights, tests)
    scores = {name: values["accuracy"] for name, values in by_hospital.items()}
    pooled = evaluator.evaluate(state.weights, hospitals.pooled.test)
    return scores | {"pooled_test": pooled["accuracy"]}


def _table(trials: Mapping[str, list[Scores]]) -> str:
    header = ["method", "pooled test", "FLamby", "verdict", *HOSPITALS]
    rows = []
    for name, of_seeds in trials.items():
        expected = PUBLISHED[name]
        mean, sd = experiment.mean_and_sd(of_seeds, "pooled_test")
        rows.append(
            [
                name,
                f"{mean:.3f} ± {sd:.3f}",
                f"{expected.mean:.3f} ± {expected.tolerance:.3f}",
                experiment.verdict(mean, expected),
                *(
                    "{:.3f} ± {:.3f}".format(
                        *experiment.mean_and_sd(of_seeds, hospital)
                    )
                    for hospital in HOSPITALS
                ),
            ]
        )
    return experiment.table(header, rows)


if __name__ == "__main__":
    main()
