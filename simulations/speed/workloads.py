"""The workloads' rows and first weights, made from a seed or read from data files."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fedtrain.core import seeds
from fedtrain.data.sets import load
from fedtrain.models.recurrent import character_lstm
from simulations.speed.workload import Array, Workload

_SEED = seeds.root(0)


def mlp() -> Workload:
    """100 clients of 100 rows of 23 numbers; layers 23-64-32-2."""
    rows, columns = 100 * 100, 23
    random = seeds.generator(seeds.derive(_SEED, "mlp"))
    features = random.standard_normal([rows, columns]).astype(np.float32)
    direction = random.standard_normal(columns)
    return Workload(
        name="mlp",
        kind="feedforward",
        batch_size=20,
        learning_rate=0.1,
        features=features,
        labels=(features @ direction > 0).astype(np.int32),
        offsets=np.arange(101) * 100,
        weights=_layers([[23, 64], [64, 32], [32, 2]]),
    )


def cnn() -> Workload:
    """10 clients of 100 MNIST images; the CNN of McMahan et al. (2017)."""
    examples = load("mnist", seed=0).train.examples
    return Workload(
        name="cnn",
        kind="feedforward",
        batch_size=20,
        learning_rate=0.05,
        features=np.ascontiguousarray(examples.features[:1000]),
        labels=np.ascontiguousarray(examples.labels[:1000]),
        offsets=np.arange(11) * 100,
        weights=_layers([[5, 5, 1, 32], [5, 5, 32, 64], [3136, 512], [512, 10]]),
        padding="SAME",
    )


def lstm() -> Workload:
    """10 Shakespeare roles, spread evenly; the model of Reddi et al. (2021)."""
    split = load("shakespeare", seed=0)
    positions = np.linspace(0, split.train.num_clients, 11)[:-1].astype(int)
    clients = [split.train.client(position) for position in positions]
    sizes = [client.num_examples for client in clients]
    model = character_lstm(split.num_classes)
    first = model.init(seeds.derive(_SEED, "characters")).trainable
    names = ("kernel", "recurrent", "bias")
    layers = [first[f"lstm_{i}"][name] for i in (1, 2) for name in names]
    weights = [first["embedding"], *layers, first["kernel"], first["bias"]]
    return Workload(
        name="lstm",
        kind="characters",
        batch_size=4,
        learning_rate=0.5,
        features=np.concatenate([client.features for client in clients]),
        labels=np.concatenate([client.labels for client in clients]),
        offsets=np.cumsum([0, *sizes]),
        weights=[np.asarray(leaf) for leaf in weights],
    )


def writers() -> Workload:
    """All 539 writers of MNIST's training rows, each with its own number of rows."""
    train = load("mnist", seed=0).train
    return Workload(
        name="writers",
        kind="feedforward",
        batch_size=20,
        learning_rate=0.1,
        features=train.examples.features,
        labels=train.examples.labels,
        offsets=train.offsets,
        weights=_layers([[5, 5, 1, 8], [5, 5, 8, 16], [256, 10]]),
    )


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mlp": mlp,
    "cnn": cnn,
    "lstm": lstm,
    "writers": writers,
}


def _layers(shapes: Sequence[Sequence[int]]) -> list[Array]:
    """Glorot's uniform kernels and biases of zeros, in turns."""
    random = seeds.generator(seeds.derive(_SEED, "weights", str(shapes)))
    weights = []
    for shape in shapes:
        field = math.prod(shape[:-2])
        limit = math.sqrt(6.0 / (field * (shape[-2] + shape[-1])))
        kernel = random.uniform(-limit, limit, shape).astype(np.float32)
        weights += [kernel, np.zeros(shape[-1], np.float32)]
    return weights
