"""Runs light federations under random faults, and checks how each of them ends.

python -m simulations.reliability.run --runs 500 --seed 1
"""

import argparse
import contextlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simulations.reliability.light_world import Federation, LightWorld
from simulations.reliability.trial import Outcome, Patience, Trial

_BAR_S = 120.0


def main() -> None:
    """Prints a line for each run, and what all of them came to."""
    options = options_of(__doc__, runs=500, faults=8)
    show(trials(seeds_of(options), num_faults=options.faults))


def trials(
    seeds: Iterable[int], *, num_faults: int, patience: Patience | None = None
) -> Iterable[Outcome]:
    """One run for each seed, one after the other."""
    with (
        tempfile.TemporaryDirectory() as base,
        contextlib.closing(Federation(Path(base) / "shared")) as federation,
    ):
        for seed in seeds:
            world = LightWorld(federation, Path(base) / f"run-{seed}")
            yield Trial(world, seed, patience or Patience()).outcome(num_faults)
            shutil.rmtree(world.folder)


def options_of(about: str | None, *, runs: int, faults: int) -> argparse.Namespace:
    """The command line, with what is done by default."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--faults", type=int, default=faults, help="in each run")
    return parser.parse_args()


def seeds_of(options: argparse.Namespace) -> range:
    """One for each run."""
    return range(options.seed, options.seed + options.runs)


def show(outcomes: Iterable[Outcome]) -> None:
    """Prints each outcome as it comes, then their summary; exits 1 at a problem."""
    seen = []
    for outcome in outcomes:
        seen.append(outcome)
        print(line_of(outcome), flush=True)
    print(json.dumps(summary(seen), indent=2))
    if any(outcome.problem for outcome in seen):
        raise SystemExit(1)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Counts of faults and of problems, and how long the runs took."""
    seconds = sorted(outcome.seconds for outcome in outcomes)
    faults = Counter(fault for outcome in outcomes for fault in outcome.faults)
    return {
        "runs": len(outcomes),
        "complete": sum(not outcome.problem for outcome in outcomes),
        f"over_{_BAR_S:g}_s": sum(each > _BAR_S for each in seconds),
        "median_s": round(seconds[len(seconds) // 2], 1),
        "longest_s": round(seconds[-1], 1),
        "faults": dict(sorted(faults.items())),
        "problems": [(o.seed, o.problem) for o in outcomes if o.problem],
    }


def line_of(outcome: Outcome) -> str:
    """How it ended; with a problem, all that is known about it."""
    ended = outcome.problem or ("slow" if outcome.is_slow else "as without faults")
    faults = ", ".join(outcome.faults)
    line = f"{outcome.seed:4d} {outcome.seconds:6.1f} s  {ended}  [{faults}]"
    return f"{line}\n{outcome.logs}" if outcome.logs else line


if __name__ == "__main__":
    main()
