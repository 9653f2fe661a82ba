"""What bfloat16 costs in accuracy: the same federated runs in both precisions.

MNIST over 600 even clients of 100 rows, 20 of them in each round, one local epoch in
batches of 20, two 5 x 5 convolutions and a dense layer of 512; everything but the
precision of clients' steps is the same, seed by seed.
"""

import argparse

import tensorflow as tf

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.data.cohorts import uniform_sampler
from fedtrain.data.partition import iid
from fedtrain.data.sets import load
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.train import TrainingRun, train
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.precision import Precision
from simulations import experiment
from simulations.convolutional import convolutional_classifier

_MODEL = convolutional_classifier(filters=(32, 64), hidden=(512,))
_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def main() -> None:
    """Trains in both precisions and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    rows = []
    for precision in _PRECISIONS:
        scores = [
            {"accuracy": accuracy(precision, seed, given.rounds)}
            for seed in range(given.seeds)
        ]
        mean, deviation = experiment.mean_and_sd(scores, "accuracy")
        rows.append((precision, f"{mean:.4f} ± {deviation:.4f}"))
    print(experiment.table(("precision", "test accuracy"), rows))


def accuracy(precision: Precision, seed: int, num_rounds: int) -> float:
    """Test accuracy after ``num_rounds``."""
    split = load("mnist", seed=seed, partition=iid(num_clients=600))
    work = local_sgd(_MODEL, sgd(0.05), Epochs(batch_size=20))
    round_ = fed_avg(work)
    run = TrainingRun(
        round_=round_,
        dataset=split.train,
        sampler=uniform_sampler(cohort_size=20),
        runtime=CompiledRuntime(strategy="graph", precision=precision),
        num_rounds=num_rounds,
        seed=seeds.root(seed),
    )
    weights = _MODEL.init(seeds.derive(run.seed, "weights"))
    state = train(run, round_.init(weights)).state
    return Evaluator(_MODEL).evaluate(state.weights, split.test)["accuracy"]


if __name__ == "__main__":
    main()
