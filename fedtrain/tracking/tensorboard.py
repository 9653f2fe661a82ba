"""Scalars and histograms for TensorBoard.

What the clients reported goes under ``train/``, what was evaluated under ``test/``,
with the same names, so that TensorBoard draws both curves in one plot.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.histogram import metadata as histogram_metadata

from fedtrain.core import validate
from fedtrain.rounds.report import OnRound, RoundReport
from fedtrain.rounds.round import ServerState
from fedtrain.tracking.statement import require_statement

_TEST = "test_"
_BUCKETS = 30


@contextmanager
def tensorboard_log(
    log_dir: str | Path,
    *,
    histograms_every: int = 10,
    privacy_statement: str | None = None,
) -> Iterator[OnRound]:
    """Writes metrics, epsilon and histograms of the weights to ``log_dir``.

    A resumed run may write to the same folder: it repeats the rounds after its
    checkpoint with the same numbers.

    Args:
      log_dir: For ``tensorboard --logdir``.
      histograms_every: Rounds from one histogram of all weights to the next.
      privacy_statement: What an epsilon means here; shown with its plot. Without it an
        epsilon is refused.

    Yields:
      A callback for ``train(on_round=...)``.
    """
    validate.positive_integer(histograms_every=histograms_every)
    writers = {
        name: tf.summary.create_file_writer(str(Path(log_dir) / name))
        for name in ("train", "test")
    }
    try:
        yield partial(_write, writers, histograms_every, privacy_statement)
    finally:
        for writer in writers.values():
            writer.close()


def split_metrics(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Metrics under ``"train"`` and, where named ``test_...``, under ``"test"``."""
    train = {name: v for name, v in metrics.items() if not name.startswith(_TEST)}
    test = {
        name.removeprefix(_TEST): v
        for name, v in metrics.items()
        if name.startswith(_TEST)
    }
    return {"train": train, "test": test}


def named_leaves(nest: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a nest by path, such as ``trainable/0/kernel``."""
    if hasattr(nest, "_asdict"):
        nest = nest._asdict()
    if isinstance(nest, list | tuple):
        nest = {str(i): item for i, item in enumerate(nest)}
    if not isinstance(nest, Mapping):
        return {path: nest}
    leaves: dict[str, Any] = {}
    for name, item in nest.items():
        leaves |= named_leaves(item, f"{path}/{name}" if path else str(name))
    return leaves


def _write(
    writers: Mapping[str, Any],
    histograms_every: int,
    privacy_statement: str | None,
    report: RoundReport,
    state: ServerState,
) -> None:
    step = report.round_number
    for name, metrics in split_metrics(report.metrics).items():
        with writers[name].as_default(step=step):
            for metric, value in metrics.items():
                tf.summary.scalar(metric, value)
    with writers["train"].as_default(step=step):
        _write_round(report, privacy_statement)
        if step % histograms_every == 0:
            for name, leaf in named_leaves(state.weights).items():
                _write_histogram(f"weights/{name}", leaf)
    for writer in writers.values():
        writer.flush()


def _write_histogram(name: str, leaf: Any) -> None:
    """As ``tf.summary.histogram``, which takes 30 float64 for each number it counts."""
    values = np.asarray(leaf)
    floats = values.astype(np.promote_types(values.dtype, np.float32), copy=False)
    counts, edges = np.histogram(floats, bins=_BUCKETS)
    tf.summary.write(
        name,
        np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float64),
        metadata=histogram_metadata.create_summary_metadata(None, None),
    )


def _write_round(report: RoundReport, privacy_statement: str | None) -> None:
    tf.summary.scalar("round/seconds", report.seconds)
    if report.cohort_size is not None:
        tf.summary.scalar("round/cohort_size", report.cohort_size)
    if report.lost_clients is not None:
        tf.summary.scalar("round/lost_clients", len(report.lost_clients))
    require_statement(report.spent_epsilon, privacy_statement)
    if report.spent_epsilon is not None:
        tf.summary.scalar(
            "privacy/epsilon", report.spent_epsilon, description=privacy_statement
        )
