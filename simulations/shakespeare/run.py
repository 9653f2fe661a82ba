"""Shakespeare by role: the next character, by FedAvg and FedAdam.

The recipe is that of Reddi et al. (2021): 715 roles, 10 of them in each of 1,200
rounds, one local pass in batches of 4, embedding 8 and two LSTMs of 256; the figure is
the test accuracy (real characters) over the last 100 rounds. The default of 100 rounds
is the check; ``--rounds 1200`` goes on from there to the published run, in as many
sittings as it takes.

Source: Reddi et al. (2021), https://arxiv.org/abs/2003.00295, Table 1 and its learning
rates.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.data.cohorts import uniform_sampler
from fedtrain.data.sets import DataSplit, load
from fedtrain.models.model import Model
from fedtrain.models.recurrent import character_lstm
from fedtrain.optimizers.adaptive import adam
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.train import TrainingRun
from fedtrain.runtimes.compiled import CompiledRuntime
from simulations import experiment
from simulations.experiment import Expected, Scores

PUBLISHED_ROUNDS = 1200
PUBLISHED = {"fed_avg": Expected(0.569, 0.005), "fed_adam": Expected(0.570, 0.005)}
_COHORT_SIZE, _LAST_ROUNDS, _EVALUATE_EVERY = 10, 100, 20
_EVALUATE_EARLY_EVERY = 100  # an evaluation costs as much as five rounds


def main() -> None:
    """Runs the trials that are not done yet and prints the table."""
    given = experiment.arguments(
        __doc__, name="shakespeare", num_seeds=1, num_rounds=100
    )
    split = load("shakespeare", seed=0)
    model = character_lstm(split.num_classes)
    trials = {
        name: [
            experiment.remembered(
                given.output / name / f"seed_{seed}" / f"after_{given.rounds}_rounds",
                partial(_measure, model, round_, split, given.rounds, seed),
            )
            for seed in range(given.seeds)
        ]
        for name, round_ in rounds(model).items()
        if name in given.only or not given.only
    }
    experiment.report(given.output, "shakespeare", _table(trials, given.rounds), trials)


def rounds(model: Model) -> dict[str, Round]:
    """FedAvg and FedAdam with the published learning rates."""
    work = local_sgd(model, sgd(1.0), Epochs(batch_size=4))
    return {
        "fed_avg": fed_avg(work),
        "fed_adam": fed_avg(work, server_optimizer=adam(0.01, epsilon=1e-3)),
    }


def _measure(
    model: Model,
    round_: Round,
    split: DataSplit,
    num_rounds: int,
    seed: int,
    folder: Path,
) -> Scores:
    root = seeds.root(seed)
    evaluator = Evaluator(model)

    def evaluate(state: ServerState) -> Scores:
        rounds_done = int(state.round_number)
        is_last = rounds_done > num_rounds - _LAST_ROUNDS
        if not is_last and rounds_done % _EVALUATE_EARLY_EVERY:
            return {}
        scores = evaluator.evaluate(state.weights, split.test)
        return {f"test_{metric}": value for metric, value in scores.items()}

    run = TrainingRun(
        round_=round_,
        dataset=split.train,
        sampler=uniform_sampler(cohort_size=_COHORT_SIZE),
        runtime=CompiledRuntime(chunk_size=1),
        num_rounds=num_rounds,
        seed=root,
        evaluate=evaluate,
        evaluate_every=_EVALUATE_EVERY,
    )
    first = round_.init(model.init(seeds.derive(root, "weights")))
    # Beside the result's folder: a longer run goes on from a shorter one's checkpoint.
    experiment.trained(run, first, folder.parent, save_every=5)
    rows = experiment.curve(folder.parent)[:num_rounds]
    evaluated = [row for row in rows if "test_accuracy" in row]
    last = [row for row in evaluated if row["round"] > num_rounds - _LAST_ROUNDS]
    curve = {f"round_{row['round']}": row["test_accuracy"] for row in evaluated}
    return curve | {
        "accuracy_over_last_100": float(np.mean([r["test_accuracy"] for r in last])),
        "last_accuracy": evaluated[-1]["test_accuracy"],
        "last_loss": evaluated[-1]["test_loss"],
    }


def _table(trials: Mapping[str, list[Scores]], num_rounds: int) -> str:
    header = ["method", "over the last 100", "last round", "published", "verdict"]
    rows = []
    for name, of_seeds in trials.items():
        mean, sd = experiment.mean_and_sd(of_seeds, "accuracy_over_last_100")
        last, _ = experiment.mean_and_sd(of_seeds, "last_accuracy")
        expected = PUBLISHED[name]
        whole = num_rounds >= PUBLISHED_ROUNDS
        rows.append(
            [
                name,
                f"{mean:.4f} ± {sd:.4f}",
                f"{last:.4f}",
                f"{expected.mean:.3f}",
                experiment.verdict(mean, expected) if whole else "a check only",
            ]
        )
    return experiment.table(header, rows)


if __name__ == "__main__":
    main()
