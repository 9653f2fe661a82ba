"""TensorFlow Federated as a runtime: the reference that simulation is checked against.

The round's own functions become the three local computations of one federated
computation: broadcast, client work reduced over a ``tf.data.Dataset``, server update.
Between clients and server lies nothing but ``tff.federated_sum``.

At TFF's boundary every nest is a flat list of tensors, because TFF's types do not sort
dicts as ``tf.nest`` does, and a dataset's reduction takes no lists.
"""

import atexit
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
import tree  # type: ignore[import-untyped]  # dm-tree has no types

from fedtrain.client_work.client_work import Broadcast, ClientInput, ClientWork
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples, map_arrays
from fedtrain.models.model import Batch, without_trailing_padding
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import (
    Cohort,
    CohortClient,
    RoundResult,
    batching_seed,
    client_seed,
    mean_metrics,
    refuse_order_statistics,
    server_seed,
)
from fedtrain.runtimes.eager import EagerRuntime
from fedtrain.runtimes.tff_worker import TffWorker

_SEED_SPEC = tf.TensorSpec([2], tf.int32)


class TffRuntime:
    """Runs a round as one TFF computation, in a worker process that it owns.

    The worker starts with the first round and ends with ``close()``, with the ``with``
    block, or with this process, however that ends. Clients' rows are sent to it: this
    is a simulation, on one machine.
    """

    def __init__(self) -> None:
        self._service: _Service | None = None
        self._computations: dict[Any, tuple[Round, _Federated]] = {}

    def __enter__(self) -> "TffRuntime":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker process; a further round starts another one."""
        service, self._service = self._service, None
        if service is not None:
            service.close()

    @property
    def context(self) -> Any:
        """TFF's execution context for the worker; install it to run other computations.

        ``with tff.framework.get_context_stack().install(runtime.context): ...``
        """
        if self._service is None:
            self._service = _Service()
        return self._service.context

    @property
    def is_isolated(self) -> bool:
        """Whether the running worker is cut off from every network."""
        return self._service is not None and self._service.worker.is_isolated

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Runs one round over ``cohort``.

        Raises:
          ConfigError: If the round needs every contribution, not only their sum.
        """
        refuse_order_statistics(round_)
        if not cohort:
            return EagerRuntime().run_round(round_, state, cohort, seed)
        given = [_given(round_.client_work, client, seed) for client in cohort]
        federated = self._federated(round_, state, given[0])
        clients = [_leaves(client) for client in given]
        with tff.framework.get_context_stack().install(self.context):
            outcome = federated.function(_leaves(state), [server_seed(seed)], clients)
        return _round_result(federated, outcome, cohort)

    def _federated(
        self, round_: Round, state: ServerState, given: "_Given"
    ) -> "_Federated":
        state_spec = tf.nest.map_structure(_spec, nests.to_tensors(state))
        given_spec = _given_spec(given)
        key = (id(round_), repr(state_spec), repr(given_spec))
        if key not in self._computations:
            # The round is kept, so that no other round can get its id.
            made = _federated(round_, state_spec, given_spec)
            self._computations[key] = (round_, made)
        return self._computations[key][1]


class _Service:
    """A worker and TFF's context for it."""

    def __init__(self) -> None:
        tff_dir = Path(tff.__file__).parent
        self.worker = TffWorker(tff_dir / "data" / "worker_binary")
        self._stub = tff.framework.RemoteExecutorGrpcStub(self.worker.channel)
        self._executors: list[Any] = []
        self.context = tff.framework.SyncExecutionContext(
            tff.framework.ResourceManagingExecutorFactory(self._executor),
            tff.backends.native.desugar_and_transform_to_native,
            transform_args=_without_tensors,
            transform_result=_without_tensors,
        )
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)

    def close(self) -> None:
        """Ends the worker process."""
        atexit.unregister(self._at_exit)
        # An open executor would later dispose of its values at a worker that is gone.
        for executor in self._executors:
            executor.close()
        self.worker.close()

    def _executor(self, cardinalities: Any) -> Any:
        cardinalities.setdefault(tff.CLIENTS, 0)
        executor = tff.framework.RemoteExecutor(self._stub)
        executor.set_cardinalities(cardinalities)
        self._executors.append(executor)
        return executor


def _close(service: "weakref.ref[_Service]") -> None:
    alive = service()
    if alive is not None:
        alive.close()


def _without_tensors(value: Any) -> Any:
    return tree.traverse(
        lambda leaf: leaf.numpy() if isinstance(leaf, tf.Tensor) else None, value
    )


class _Given(NamedTuple):
    """All that one client has: its batches [steps, batch, ...] and its input."""

    batches: Batch
    client: ClientInput


class _Local(NamedTuple):
    """A local TFF computation over flat lists; ``results`` are its results' specs."""

    function: Any
    results: tuple[Any, ...]


class _Federated(NamedTuple):
    """A federated computation over flat lists, and what its results stand for."""

    function: Any
    results: tuple[Any, ...]


def _given(work: ClientWork, client: CohortClient, seed: seeds.Seed) -> _Given:
    own_seed = client_seed(seed, client.client_id)
    indices = work.batching.indices(client.examples, batching_seed(own_seed))
    num_examples = np.int32(client.examples.num_examples)
    return _Given(
        batches=_gather(client.examples, indices),
        client=ClientInput(nests.to_numpy(client.state), own_seed, num_examples),
    )


def _gather(examples: Examples, indices: Any) -> Batch:
    """All batches of a client; padding (-1) repeats the first row with weight 0."""
    mask = (indices >= 0).astype(np.float32)
    at = np.maximum(indices, 0)

    def rows(array: Any) -> Any:
        if len(array) == 0:
            return np.zeros([*at.shape, *array.shape[1:]], array.dtype)
        return np.asarray(array[at])

    weights = mask if examples.weights is None else mask * rows(examples.weights)
    return Batch(
        features=map_arrays(rows, examples.features),
        labels=rows(examples.labels),
        weights=np.asarray(weights, np.float32),
        mask=mask,
    )


def _federated(round_: Round, state: Any, given: Any) -> _Federated:
    """The round as one federated computation, from the specs of its arguments."""
    broadcast = _local(lambda state: (round_.broadcast(state),), state)
    contribute = _local(
        partial(_contribute, round_.client_work), *broadcast.results, given
    )
    total, client_state = contribute.results
    update = _local(partial(_update, round_), state, total, _SEED_SPEC)

    @tff.federated_computation(
        tff.FederatedType(_tff_type(state), tff.SERVER),
        tff.FederatedType(_tff_type(_SEED_SPEC), tff.SERVER),
        tff.FederatedType(_tff_type(given), tff.CLIENTS),
    )
    def function(state: Any, seed: Any, clients: Any) -> Any:
        message = tff.federated_map(broadcast.function, state)[0]
        sent = tff.federated_map(
            contribute.function, (tff.federated_broadcast(message), clients)
        )
        total = tff.federated_sum(sent[0])
        updated = tff.federated_map(update.function, (state, total, seed))
        return updated[0], updated[1], sent[1]

    return _Federated(function, (*update.results, client_state))


def _contribute(work: ClientWork, message: Broadcast, given: _Given) -> Any:
    """One client's contribution and new state."""
    start = nests.to_tensors(work.start(message, given.client))

    def step(carry: Any, batch: Any) -> Any:
        unpacked = tf.nest.pack_sequence_as(given.batches, batch)
        before = tf.nest.pack_sequence_as(start, carry)
        after = work.step(before, without_trailing_padding(unpacked))
        return tuple(tf.nest.flatten(after))

    batches = tf.data.Dataset.from_tensor_slices(tuple(tf.nest.flatten(given.batches)))
    carry = batches.reduce(tuple(tf.nest.flatten(start)), step)
    return work.finish(message, tf.nest.pack_sequence_as(start, carry))


def _update(round_: Round, state: Any, total: Any, seed: Any) -> Any:
    """The server's new state and what its clients reported."""
    return round_.server_update(state, total, seed), total.metrics


def _local(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> _Local:
    """Traces ``function`` and hands its graph to TFF.

    TFF would trace it in a bare graph, where Keras behaves as in TensorFlow 1 and eager
    constants cannot be read; a ``tf.function`` is traced as everywhere else.
    """
    results: list[Any] = []

    def flat(*leaves: Any) -> list[Any]:
        unpacked = tf.nest.pack_sequence_as(arguments, leaves)
        result = tf.nest.map_structure(tf.convert_to_tensor, function(*unpacked))
        results[:] = tf.nest.map_structure(_spec, result)
        return tf.nest.flatten(result)

    traced = tf.function(flat).get_concrete_function(*tf.nest.flatten(arguments))
    parameter = [_tff_type(argument) for argument in arguments]
    body = _imported(traced, results)
    one_argument = parameter[0] if len(parameter) == 1 else parameter
    return _Local(tff.tensorflow.computation(body, one_argument), tuple(results))


def _imported(traced: Any, results: list[Any]) -> Callable[[Any], Any]:
    """A function of flat lists that copies the traced graph into the current one."""
    graph_def = traced.graph.as_graph_def()
    constants = {inner.name: _constant(outer) for outer, inner in traced.graph.captures}
    inputs = [tensor.name for tensor in traced.inputs if tensor.name not in constants]
    outputs = [tensor.name for tensor in traced.outputs]

    def body(parameters: Any) -> Any:
        known = {name: tf.constant(value) for name, value in constants.items()}
        known |= zip(inputs, tf.nest.flatten(parameters), strict=True)
        tensors = tf.import_graph_def(
            graph_def, input_map=known, return_elements=outputs, name=""
        )
        packed = tf.nest.pack_sequence_as(results, tensors)
        return tuple(tf.nest.flatten(part) for part in packed)

    return body


def _constant(captured: Any) -> Any:
    if captured.dtype == tf.resource:
        raise ConfigError(
            "The round reads a tf.Variable while it runs; a model must be a function "
            "of the weights it is given. For a Keras model use keras_model(...)."
        )
    return captured.numpy()


def _spec(leaf: Any) -> tf.TensorSpec:
    return tf.TensorSpec(leaf.shape, leaf.dtype)


def _given_spec(given: _Given) -> Any:
    """Specs of what clients have; numbers of steps and rows differ among clients."""

    def any_size(spec: tf.TensorSpec) -> tf.TensorSpec:
        return tf.TensorSpec([None, None, *spec.shape[2:]], spec.dtype)

    specs = tf.nest.map_structure(_spec, nests.to_tensors(given))
    return specs._replace(batches=tf.nest.map_structure(any_size, specs.batches))


def _tff_type(specs: Any) -> Any:
    leaves = tf.nest.flatten(specs)
    return tff.to_type(
        [tff.TensorType(s.dtype.as_numpy_dtype, s.shape.as_list()) for s in leaves]
    )


def _leaves(nest: Any) -> list[Any]:
    return [np.asarray(leaf) for leaf in tf.nest.flatten(nest)]


def _round_result(federated: _Federated, outcome: Any, cohort: Cohort) -> RoundResult:
    state_spec, metrics_spec, client_spec = federated.results
    state, metrics, client_states = outcome
    return RoundResult(
        state=nests.to_tensors(_packed(state_spec, state)),
        metrics=mean_metrics(_packed(metrics_spec, metrics)),
        client_states={
            client.client_id: nests.to_tensors(_packed(client_spec, leaves))
            for client, leaves in zip(cohort, client_states, strict=True)
        },
    )


def _packed(spec: Any, leaves: Any) -> Any:
    return tf.nest.pack_sequence_as(spec, list(leaves))
