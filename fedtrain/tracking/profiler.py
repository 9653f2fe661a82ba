"""A profile of some rounds, for TensorBoard's profiler."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.rounds.report import OnRound, RoundReport
from fedtrain.rounds.round import ServerState


@contextmanager
def profile_rounds(
    log_dir: str | Path, *, first: int, last: int, next_round: int = 0
) -> Iterator[OnRound]:
    """Profiles rounds ``first`` to ``last``, both included, into ``log_dir``.

    The first round of a process also traces and compiles; profile a later one to see
    what a usual round spends its time on. A profile in progress is written when the
    run ends early.

    Args:
      log_dir: The folder of ``tensorboard_log``.
      first: Number of the first round to profile.
      last: Number of the last one.
      next_round: The round the run starts with, when it is resumed.

    Yields:
      A callback for ``train(on_round=...)``.
    """
    if not next_round <= first <= last:
        raise ConfigError(
            f"first={first} and last={last} must be rounds still to be done, in this "
            f"order; the run starts with round {next_round}."
        )
    running = first == next_round
    if running:
        tf.profiler.experimental.start(str(log_dir))

    def on_round(report: RoundReport, state: ServerState) -> None:
        nonlocal running
        del state
        if report.round_number + 1 == first:
            tf.profiler.experimental.start(str(log_dir))
            running = True
        elif running and report.round_number >= last:
            running = False
            tf.profiler.experimental.stop()

    try:
        yield on_round
    finally:
        if running:
            tf.profiler.experimental.stop()
