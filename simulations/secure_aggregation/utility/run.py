"""What noise in shares costs: MNIST over ten institutions, example-level privacy.

Three methods at the same epsilon, seed by seed: ``distributed`` as the project file
says (h of n honest clients are counted on), ``all_honest`` with h = n, and ``central``
with float noise that the aggregator adds once.

  python -m simulations.secure_aggregation.utility.run --seeds 10
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fedtrain
from simulations import experiment

FILE = Path(__file__).with_name("federation.toml")
METHODS: Mapping[str, tuple[str, ...]] = {
    "distributed": (),
    "all_honest": ("rounds.threshold=10", "rounds.num_colluding=0"),
    "central": (
        "rounds.secure_aggregation=false",
        'privacy.trust="central"',
    ),
}
# The bar of the distributed run, and how far all_honest may be from central.
LEAST_ACCURACY = 0.966
MOST_DIFFERENCE = 0.005
_BYTES_OF_A_WEIGHT = 4


def main() -> None:
    """Runs what is not done yet and prints the table."""
    asked = experiment.arguments(
        __doc__ or "", name="secure_aggregation_utility", num_seeds=10, num_rounds=600
    )
    names = [name for name in METHODS if not asked.only or name in asked.only]
    trials = {
        name: [_trial(asked, name, seed) for seed in range(asked.seeds)]
        for name in names
    }
    text = f"{_table(trials)}\n\n{_paired(trials)}".rstrip()
    experiment.report(asked.output, "secure_aggregation_utility", text, trials)


def _trial(asked: Any, name: str, seed: int) -> experiment.Scores:
    folder = asked.output / f"{name}-{seed}"

    def measured(folder: Path) -> experiment.Scores:
        overrides = (
            f"seed={seed}",
            f"rounds.num_rounds={asked.rounds}",
            f'tracking.runs_dir="{folder.resolve()}"',
            "tracking.tensorboard=false",
            "tracking.html_report=false",
            *METHODS[name],
        )
        summary = fedtrain.simulate(FILE, overrides)
        return _scores(summary, asked.rounds)

    return experiment.remembered(folder, measured)


def _scores(summary: Mapping[str, Any], num_rounds: int) -> dict[str, float]:
    report = fedtrain.load_run(summary["run"]).privacy_report or {}
    (mechanism,) = report["mechanisms"]
    num_weights = mechanism["details"].get("num_weights", 0)
    return {
        "accuracy": summary["test"]["accuracy"],
        "epsilon": report["epsilon"],
        "noise_multiplier": mechanism["noise_multiplier"],
        "rounds": num_rounds,
        "uploaded_mb": num_rounds * num_weights * _BYTES_OF_A_WEIGHT / 1e6,
    }


def _table(trials: Mapping[str, list[experiment.Scores]]) -> str:
    rows = []
    for name, own in trials.items():
        mean, spread = experiment.mean_and_sd(own, "accuracy")
        reached = ""
        if name == "distributed":
            reached = experiment.verdict(mean, experiment.Expected(LEAST_ACCURACY, 0.0))
        first = own[0]
        rows.append(
            [
                name,
                f"{mean:.4f} ± {spread:.4f}",
                f"{first['epsilon']:.3g}",
                f"{first['noise_multiplier']:.4g}",
                f"{first['rounds']:g}",
                f"{first['uploaded_mb']:.4g}",
                reached,
            ]
        )
    header = ["method", "accuracy", "epsilon", "noise", "rounds", "MB a client", ""]
    return experiment.table(header, rows)


def _paired(trials: Mapping[str, list[experiment.Scores]]) -> str:
    if not {"all_honest", "central"} <= set(trials):
        return ""
    pairs = zip(trials["all_honest"], trials["central"], strict=True)
    differences = [{"points": a["accuracy"] - b["accuracy"]} for a, b in pairs]
    mean, spread = experiment.mean_and_sd(differences, "points")
    verdict = "within" if abs(mean) <= MOST_DIFFERENCE else "beyond"
    return (
        f"all_honest less central, seed by seed: {100 * mean:+.2f} ± "
        f"{100 * spread:.2f} points over {len(differences)} seeds; {verdict} "
        f"{100 * MOST_DIFFERENCE:g}."
    )


if __name__ == "__main__":
    main()
