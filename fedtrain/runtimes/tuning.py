"""Finds the fastest way to run a cohort, by trying.

No strategy wins everywhere: XLA and stacked clients are many times faster for small
dense layers, and many times slower for convolutions on a CPU. So the first cohort of a
training run is run in each way that could win, and the fastest that fits in memory is
kept. A trial is dropped early if it does not compute what the graph loop computes, or
is far slower on two steps. What was found is remembered for the same kind of work on
the same kind of machine.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError
from fedtrain.rounds.runtime import Cohort
from fedtrain.runtimes import remembered
from fedtrain.runtimes.engine import Engine, padding_share
from fedtrain.runtimes.execution import Execution, free_memory_bytes
from fedtrain.runtimes.packing import PackedChunk, PackedCohort
from fedtrain.runtimes.strategies import STRATEGIES, WORDS, Strategy

# Trials may take this share of what all rounds would take in a graph loop.
_SHARE_OF_RUN = 0.25
_MOST_SECONDS = 60.0
_LEAST_SECONDS = 2.0
# Short rounds are repeated: other work on the machine would decide otherwise.
_LEAST_REPETITIONS, _MOST_REPETITIONS, _SECONDS_OF_TRIAL = 2, 30, 0.3
# A strategy this much slower than the graph loop on two steps is not tried further.
_HOPELESS = 3.0
# Trained weights, gradients, slots and copies that a client keeps side by side.
_COPIES = 6
_SAME_UPDATE = 1e-3


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
      execution: How to run the rounds.
      line: What was chosen and why, for a person; empty if nothing was tried.
    """

    execution: Execution
    line: str


class Trial(NamedTuple):
    """One way that was tried: seconds for the cohort, or why it was dropped."""

    execution: Execution
    seconds: float
    dropped: str = ""


@dataclass(frozen=True)
class _Bench:
    """The first cohort, to be run in whatever way is to be tried."""

    engine: Engine
    message: Broadcast
    cohort: Cohort
    seed: seeds.Seed
    default: Execution

    def seconds(self, execution: Execution) -> float:
        """Of running the cohort while the next is packed, as in training.

        The best of several; compiling is left out.
        """
        seconds: list[float] = []
        with ThreadPoolExecutor(1) as ahead:
            self._timed(execution, ahead)
            while len(seconds) < _LEAST_REPETITIONS or (
                sum(seconds) < _SECONDS_OF_TRIAL and len(seconds) < _MOST_REPETITIONS
            ):
                seconds.append(self._timed(execution, ahead))
        return min(seconds)

    def _timed(self, execution: Execution, ahead: ThreadPoolExecutor) -> float:
        packed = self._pack(execution)
        started = time.perf_counter()
        packing = ahead.submit(self._pack, execution)
        result = self.engine.run(self.message, packed, self.cohort, execution)
        _wait_for(result)
        packing.result()
        return time.perf_counter() - started

    def _pack(self, execution: Execution) -> PackedCohort:
        return self.engine.pack(self.cohort, self.seed, execution)

    def probe(self, execution: Execution) -> tuple[float, Any]:
        """Two steps of the first chunk: seconds for each client, and the update."""
        packed = self._pack(execution)
        short = packed._replace(chunks=(_two_steps(packed.chunks[0]),))
        clients = int(short.chunks[0].chunk.num_clients)
        for _ in range(2):
            started = time.perf_counter()
            result = self.engine.run(self.message, short, self.cohort, execution)
            _wait_for(result)
            seconds = time.perf_counter() - started
        total = self.engine.total(self.message, result.partial_sums)
        return seconds / clients, total


def fastest(
    engine: Engine,
    message: Broadcast,
    cohort: Cohort,
    seed: seeds.Seed,
    *,
    default: Execution,
    num_rounds: int,
) -> Choice:
    """The fastest way to run rounds over cohorts like this one.

    Args:
      engine: The round's compiled parts.
      message: What the cohort receives.
      cohort: The first cohort.
      seed: The round's.
      default: A graph loop, with the workers, precision and, if told, chunk size.
      num_rounds: How many rounds are to come. Trials are made if they pay.
    """
    key = remembered.key(engine.work, message, cohort, default)
    bench = _Bench(engine, message, cohort, seed, default)
    known = remembered.recall(key)
    if known is not None and _is_possible(bench, known):
        return Choice(known, f"Rounds run as {known}, as found in an earlier run.")
    if num_rounds * _SHARE_OF_RUN < 1 + _LEAST_REPETITIONS:
        return Choice(default, "")  # timing the graph loop alone would take longer
    graph = Trial(default, bench.seconds(default))
    budget = min(_SHARE_OF_RUN * graph.seconds * num_rounds, _MOST_SECONDS)
    if budget < _LEAST_SECONDS:
        return Choice(default, "")
    trials = [graph]
    _add_within(budget, trials, _candidates(bench, trials))
    best = min(trials, key=lambda trial: trial.seconds)
    remembered.remember(key, best.execution)
    packed = engine.pack(cohort, seed, best.execution)
    padding = padding_share(packed, best.execution.strategy)
    return Choice(best.execution, _line(best, trials, padding))


def _is_possible(bench: _Bench, execution: Execution) -> bool:
    """Other work with the same shapes may have been what was remembered."""
    if execution.strategy == "graph":
        return True
    _, expected = bench.probe(replace(bench.default, chunk_size=execution.chunk_size))
    if execution.strategy in _excluded(bench.engine, bench.default):
        return False
    try:
        return _is_same(bench.probe(execution)[1], expected)
    except (ConfigError, tf.errors.OpError):
        return False


def _add_within(
    budget: float, trials: list[Trial], candidates: Iterator[Trial]
) -> None:
    ends = time.perf_counter() + budget
    for trial in candidates:
        trials.append(trial)
        if time.perf_counter() > ends:
            break


def _candidates(bench: _Bench, trials: list[Trial]) -> Iterator[Trial]:
    """Other strategies first, then other sizes and workers for the best of them."""
    default = bench.default
    excluded = _excluded(bench.engine, default)
    for strategy in STRATEGIES[1:]:
        execution = _with_strategy(default, strategy, len(bench.cohort))
        if strategy in excluded:
            yield Trial(execution, np.inf, excluded[strategy])
        else:
            yield _tried(bench, execution)
    best = min(trials, key=lambda trial: trial.seconds).execution
    for execution in _variants(best, default, len(bench.cohort)):
        yield Trial(execution, bench.seconds(execution))


def _tried(bench: _Bench, execution: Execution) -> Trial:
    if not _fits(bench, execution):
        return Trial(execution, np.inf, "does not fit in memory")
    try:
        own_seconds, own = bench.probe(execution)
    except (ConfigError, tf.errors.OpError) as error:
        reason = type(error.__cause__ or error).__name__
        return Trial(execution, np.inf, f"not possible ({reason})")
    graph = replace(bench.default, chunk_size=execution.chunk_size)
    seconds, expected = bench.probe(graph)
    if not _is_same(own, expected):
        return Trial(execution, np.inf, "computes another update")
    if own_seconds > _HOPELESS * seconds:
        return Trial(execution, np.inf, "slower")
    return Trial(execution, bench.seconds(execution))


def _excluded(engine: Engine, default: Execution) -> dict[Strategy, str]:
    """What is not even tried: it would be wrong, end the process, or take minutes."""
    operations = engine.program("graph").operations()
    reasons: dict[Strategy, str] = {}
    if any(name.startswith(("Conv", "DepthwiseConv")) for name in operations):
        # Stacked filters have no kernel, and XLA is slow at them on processors.
        reasons |= dict.fromkeys(("stacked", "stacked_xla"), "convolutions")
        if not tf.config.list_logical_devices("GPU"):
            reasons["xla"] = "convolutions"
    if "TensorListPushBack" in operations:
        reasons |= dict.fromkeys(("stacked", "stacked_xla"), "gradient of a loop")
    if "Einsum" in operations:
        reasons |= dict.fromkeys(("stacked", "stacked_xla"), "einsum")
    if default.precision != "float32":
        reasons |= dict.fromkeys(("xla", "stacked_xla"), f"no {default.precision}")
    if engine.work.mixes_rows:
        reasons = dict.fromkeys(STRATEGIES[1:], "would mix padding with rows")
    return reasons


def _with_strategy(
    default: Execution, strategy: Strategy, cohort_size: int
) -> Execution:
    if strategy == "xla":
        # One client after another, as in a graph loop: in as many parts, so that
        # unequal clients spread over the workers alike.
        return replace(default, strategy=strategy)
    one_each = -(-cohort_size // default.num_workers)
    size = default.chunk_size or one_each
    return replace(default, strategy=strategy, chunk_size=size)


def _variants(
    best: Execution, default: Execution, cohort_size: int
) -> Iterator[Execution]:
    """Other chunk sizes, if none was told, and one worker instead of several."""
    workers = best.num_workers
    sizes = {-(-cohort_size // (workers * parts)) for parts in (1, 2, 4)}
    for size in sorted(sizes - {best.chunk_size}, reverse=True):
        if default.chunk_size is None:
            yield replace(best, chunk_size=size)
    if workers > 1:
        yield replace(best, num_workers=1, chunk_size=default.chunk_size or cohort_size)


def _fits(bench: _Bench, execution: Execution) -> bool:
    """Whether stacked copies of the weights leave half of the free memory free."""
    free = free_memory_bytes()
    if free is None or not execution.strategy.startswith("stacked"):
        return True
    one = sum(
        leaf.dtype.size * leaf.shape.num_elements()
        for leaf in tf.nest.flatten(bench.message.weights)
    )
    at_once = execution.clients_in_chunk(len(bench.cohort)) * execution.num_workers
    return one * at_once * _COPIES < free / 2


def _two_steps(part: PackedChunk) -> PackedChunk:
    steps = tf.minimum(part.chunk.num_steps, 2)
    return part._replace(chunk=part.chunk._replace(num_steps=steps))


def _wait_for(result: Any) -> None:
    for leaf in tf.nest.flatten(result.partial_sums):
        np.asarray(leaf)


def _is_same(own: Any, expected: Any) -> bool:
    distance = nests.global_norm(_float32(nests.subtract(own.update, expected.update)))
    size = nests.global_norm(_float32(expected.update))
    return bool(distance <= _SAME_UPDATE * size)


def _float32(nest: Any) -> Any:
    return tf.nest.map_structure(lambda leaf: tf.cast(leaf, tf.float32), nest)


def _line(best: Trial, trials: list[Trial], padding: float) -> str:
    others = "; ".join(_words(trial) for trial in trials if trial is not best)
    return (
        f"Rounds run as {best.execution}: {_time(best.seconds)} for the first cohort, "
        f"{100 * padding:.0f} % of it padding (tried: {others})."
    )


def _words(trial: Trial) -> str:
    if trial.dropped:
        return f"{WORDS[trial.execution.strategy]}: {trial.dropped}"
    return f"{trial.execution}: {_time(trial.seconds)}"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1.0 else f"{1e3 * seconds:.3g} ms"
