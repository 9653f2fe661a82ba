"""MNIST over ten clients, evenly mixed or with skewed labels, against NIID-Bench.

The protocol is that of Flower's ``niid_bench`` baseline: ten clients, all of them in
each of 50 rounds, ten local passes in batches of 64, SGD with learning rate 0.01,
momentum 0.9 and weight decay 1e-5, LeNet, pixels in [0, 1]; the figure is the best
round's accuracy on MNIST's own test rows.

Source: Li et al. (2022), Federated learning on non-IID data silos: an experimental
study (ICDE); the figures are those that Flower's baseline publishes.
"""

from functools import partial
from pathlib import Path

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.data.cohorts import full_participation
from fedtrain.data.partition import Partition, dirichlet, iid
from fedtrain.data.sets import load
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.fed_avg import fed_avg, fed_prox
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.train import TrainingRun
from fedtrain.runtimes.compiled import CompiledRuntime
from simulations import experiment
from simulations.convolutional import convolutional_classifier
from simulations.experiment import Expected, Scores

_TOLERANCE = 0.002
PUBLISHED = {
    "iid/fed_avg": Expected(0.9909, _TOLERANCE),
    "dirichlet/fed_avg": Expected(0.9889, _TOLERANCE),
    "iid/fed_prox": Expected(0.9916, _TOLERANCE),
    "dirichlet/fed_prox": Expected(0.9906, _TOLERANCE),
}
_PARTITIONS: dict[str, Partition] = {
    "iid": iid(num_clients=10),
    "dirichlet": dirichlet(num_clients=10, concentration=0.5),
}
_MODEL = convolutional_classifier(filters=(6, 16), hidden=(120, 84))


def main() -> None:
    """Runs the trials that are not done yet and prints the table."""
    given = experiment.arguments(__doc__, name="mnist_niid", num_seeds=1, num_rounds=50)
    runtime = CompiledRuntime(chunk_size=1)
    evaluator = Evaluator(_MODEL)
    trials = {
        name: [
            experiment.remembered(
                given.output / name / f"seed_{seed}",
                partial(_measure, name, seed, given.rounds, runtime, evaluator),
            )
            for seed in range(given.seeds)
        ]
        for name in given.only or PUBLISHED
    }
    experiment.report(given.output, "mnist_niid", _table(trials), trials)


def rounds() -> dict[str, Round]:
    """FedAvg, and FedProx with NIID-Bench's proximal strength."""
    optimizer = sgd(0.01, momentum=0.9, weight_decay=1e-5)
    batching = Epochs(batch_size=64, local_epochs=10)
    return {
        "fed_avg": fed_avg(local_sgd(_MODEL, optimizer, batching)),
        "fed_prox": fed_prox(_MODEL, optimizer, batching, proximal_strength=0.01),
    }


def _measure(
    name: str,
    seed: int,
    num_rounds: int,
    runtime: CompiledRuntime,
    evaluator: Evaluator,
    folder: Path,
) -> Scores:
    partition, algorithm = name.split("/")
    split = load("mnist", seed=seed, partition=_PARTITIONS[partition])
    round_ = rounds()[algorithm]

    def evaluate(state: ServerState) -> Scores:
        scores = evaluator.evaluate(state.weights, split.test)
        return {f"test_{metric}": value for metric, value in scores.items()}

    run = TrainingRun(
        round_=round_,
        dataset=split.train,
        sampler=full_participation(),
        runtime=runtime,
        num_rounds=num_rounds,
        seed=seeds.root(seed),
        evaluate=evaluate,
    )
    first = round_.init(_MODEL.init(seeds.derive(run.seed, "weights")))
    experiment.trained(run, first, folder, save_every=1)
    curve = experiment.curve(folder)
    best = max(curve, key=lambda row: row["test_accuracy"])
    return {
        "best_accuracy": best["test_accuracy"],
        "best_round": best["round"],
        "last_accuracy": curve[-1]["test_accuracy"],
        "num_rounds": len(curve),
    }


def _table(trials: dict[str, list[Scores]]) -> str:
    rows = []
    for name, scores in trials.items():
        best, deviation = experiment.mean_and_sd(scores, "best_accuracy")
        last, _ = experiment.mean_and_sd(scores, "last_accuracy")
        expected = PUBLISHED[name]
        rows.append(
            (
                name,
                f"{best:.4f} ± {deviation:.4f}",
                f"{last:.4f}",
                f"{expected.mean:.4f}",
                experiment.verdict(best, expected),
            )
        )
    header = ("partition/algorithm", "best round", "last round", "published", "verdict")
    return experiment.table(header, rows)


if __name__ == "__main__":
    main()
