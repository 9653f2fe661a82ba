"""Runs the real programs under random faults, and checks how each run ends.

python -m simulations.reliability.real_run --runs 25 --seed 1
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fedtrain.core.errors import FedtrainError
from simulations.reliability.nursery import Nursery
from simulations.reliability.real_world import RealWorld, Template
from simulations.reliability.run import options_of, seeds_of, show
from simulations.reliability.trial import Outcome, Patience, Trial

_PATIENCE = Patience(standstill_s=600.0, most_s=3600.0)


def main() -> None:
    """Prints a line for each run, and what all of them came to."""
    options = options_of(__doc__, runs=25, faults=6)
    show(trials(seeds_of(options), num_faults=options.faults))


def trials(seeds: Iterable[int], *, num_faults: int) -> Iterable[Outcome]:
    """One run for each seed, one after the other.

    Every other run repeats a simulation, and must end with the weights of one without
    faults; the others draw noise for release, and must have paid for all that left.
    """
    with (
        tempfile.TemporaryDirectory() as base,
        contextlib.closing(Nursery("simulations.reliability.trained")) as nursery,
        contextlib.closing(
            Template(Path(base, "same"), nursery, is_private=False)
        ) as same,
        contextlib.closing(
            Template(Path(base, "noisy"), nursery, is_private=True)
        ) as noisy,
    ):
        world = RealWorld(same, None)
        outcome = Trial(world, 0, _PATIENCE).outcome(num_faults=0)
        if outcome.problem:
            raise FedtrainError(f"A run without faults failed: {outcome}")
        expected = world.weights()
        shutil.rmtree(world.folder)
        for seed in seeds:
            world = RealWorld(noisy, None) if seed % 2 else RealWorld(same, expected)
            # Half of them are harmed while they start, half in their rounds.
            trial = Trial(world, seed, _PATIENCE, is_late=bool(seed & 2))
            yield trial.outcome(num_faults)
            shutil.rmtree(world.folder)


if __name__ == "__main__":
    main()
