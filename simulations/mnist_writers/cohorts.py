"""Which cohort for client-level privacy: the noise that each choice needs, compared.

All choices cost the same work: the sampling rate times the number of rounds. Signal
to noise is the largest length that the mean update can have over the expected length of
its noise; what counts for the end of a run is that figure times the square root of the
number of rounds.
"""

from dataclasses import replace

from fedtrain.privacy.plan import PrivacyPlan
from simulations import experiment
from simulations.mnist_writers.run import plan_for

_NUM_WRITERS = 539
_CHOICES = ((1.0, 25), (0.5, 50), (0.25, 100), (0.1, 250))  # sampling rate, rounds


def main() -> None:
    """Prints the table."""
    header = ["epsilon", "rate", "rounds", "noise", "signal/noise", "over the run"]
    rows = [_row(epsilon, *choice) for epsilon in (8.0, 2.0) for choice in _CHOICES]
    print(experiment.table(header, rows))


def plan_of(epsilon: float, sampling_rate: float, num_rounds: int) -> PrivacyPlan:
    """Poisson cohorts that nobody but the aggregator sees, or all writers."""
    everyone = plan_for(epsilon, num_rounds)
    if sampling_rate == 1.0:
        return everyone
    sampled = replace(
        everyone,
        sampling="poisson",
        sampling_rate=sampling_rate,
        cohort_is_hidden=True,
        expected_count=sampling_rate * _NUM_WRITERS,
        noise_multiplier=None,
    )
    return sampled.calibrated()


def _row(epsilon: float, sampling_rate: float, num_rounds: int) -> list[str]:
    plan = plan_of(epsilon, sampling_rate, num_rounds)
    ratio = plan.signal_to_noise() or 0.0
    whole = ratio * num_rounds**0.5
    numbers = [f"{plan.noise_multiplier:.3g}", f"{ratio:.3g}", f"{whole:.3g}"]
    return [f"{epsilon:g}", f"{sampling_rate:g}", str(num_rounds), *numbers]


if __name__ == "__main__":
    main()
