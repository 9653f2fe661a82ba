"""What one client computes in one round: three functions and the batches they want.

``start``, then ``step`` for each batch, then ``finish``. A compiled loop, TFF's dataset
reduction and a plain ``for`` loop at a partner all drive the same three functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from fedtrain.client_work.batching import Batching
from fedtrain.core.mechanism import Mechanism
from fedtrain.core.seeds import Seed
from fedtrain.models.model import Batch


class Broadcast(NamedTuple):
    """What every client of the cohort receives.

    Attributes:
      round_number: int32 scalar, from 0.
      weights: The global ``ModelWeights``.
      shared: What aggregation stages let clients see of their state.
    """

    round_number: Any
    weights: Any
    shared: Any = ()


class Contribution(NamedTuple):
    """What one client adds to the sum, and (summed) what the server receives.

    Attributes:
      update: Nest like the weights: initial minus trained.
      weight: Float scalar, usually the client's number of rows.
      metrics: Dict of ``PerExample`` scalars by name; empty where nothing may leave
        but the update.
      extras: Tuple used as a stack: a stage that adds a term in ``encode`` pushes it,
        and takes it off again in ``decode``.
    """

    update: Any
    weight: Any
    metrics: Any
    extras: tuple[Any, ...] = ()


class ClientInput(NamedTuple):
    """What a client knows by itself when a round starts.

    Attributes:
      state: What it kept from its last round; ``()`` for most algorithms.
      seed: Its own randomness for this round, int32 [2]. It never travels.
      num_examples: Its number of rows, int32 scalar.
    """

    state: Any
    seed: Seed
    num_examples: Any


class ClientWork(NamedTuple):
    """What one client computes in one round.

    Attributes:
      batching: Which rows each step sees.
      init_state: ``init_state(weights)`` -> a new client's state.
      start: ``start(message, client)`` -> carry, from a ``Broadcast`` and a
        ``ClientInput``.
      step: ``step(carry, batch)`` -> carry. A batch may end in padding, rows of mask
        0, unless the work mixes rows.
      finish: ``finish(message, carry)`` -> ``Contribution``, new client state.
      mechanisms: The privacy mechanisms applied on the client.
      reports_metrics: Whether contributions carry exact sums of loss and metrics.
      mixes_rows: Whether a row's result depends on the rest of its batch (BatchNorm),
        padding included: then no batch may be padded.
      released: ``released(noise)`` -> the same work with its noise from a source for
        release; None where it has no noise of its own, or cannot be rebuilt so.
    """

    batching: Batching
    init_state: Callable[[Any], Any]
    start: Callable[[Broadcast, ClientInput], Any]
    step: Callable[[Any, Batch], Any]
    finish: Callable[[Broadcast, Any], tuple[Contribution, Any]]
    mechanisms: tuple[Mechanism, ...] = ()
    reports_metrics: bool = False
    mixes_rows: bool = False
    released: Callable[[Any], "ClientWork"] | None = None


def stateless(weights: Any) -> tuple[()]:
    """The ``init_state`` of client work that keeps nothing between rounds."""
    del weights
    return ()
