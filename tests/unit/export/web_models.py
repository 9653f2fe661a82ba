"""Small untrained models as sources of an export, for the tests of the web target."""

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.data.examples import Examples
from fedtrain.data.schema_encoding import encoded
from fedtrain.export.record import Release, Variant
from fedtrain.export.source import Source
from fedtrain.models.dense import dense_classifier
from fedtrain.models.losses import accuracy, sparse_cross_entropy
from fedtrain.models.model import ForwardPass, Model, ModelWeights
from tests.unit.export.rows_of_a_table import SCHEMA, TABLE


def source(model: Model, features: Any, **facts: Any) -> Source:
    """``model`` with its first weights, judged by ``features``."""
    num_rows = len(
        next(iter(features.values())) if isinstance(features, dict) else features
    )
    given = {
        "name": "small",
        "model": model,
        "weights": model.init(seeds.root(3)),
        "evaluation": Examples(features=features, labels=np.zeros(num_rows, np.int32)),
        "label_names": (),
        "task": "classification",
        "status": "simulation",
        **facts,
    }
    return Source(**{**dict.fromkeys(field.name for field in fields(Source)), **given})


def table_source() -> Source:
    """A dense classifier of the rows of ``SCHEMA``."""
    features = encoded(SCHEMA, TABLE).features
    model = dense_classifier(features.shape[1], 2, hidden=(32,))
    names = SCHEMA.label_names
    return source(model, features, schema=SCHEMA, label_names=names)


def image_source() -> Source:
    """A convolution of 28 x 28 images, one of which is a drawn stroke."""
    images = seeds.generator(seeds.root(1)).random((40, 28, 28, 1), np.float32)
    split = SimpleNamespace(feature_names=(), info={})
    run = SimpleNamespace(project=lambda: SimpleNamespace(split=split))
    return source(convolution(), images, run=run, label_names=tuple("0123456789"))


def convolution(last: Any = tf.identity) -> Model:
    """A convolution, a maximum and a dense layer; ``last`` is applied to the logits."""

    def init(seed: seeds.Seed) -> ModelWeights:
        first, second = seeds.split(seed, 2)
        kernel = seeds.normal([5, 5, 1, 4], first, stddev=0.3)
        dense = seeds.normal([12 * 12 * 4, 10], second, stddev=0.1)
        return ModelWeights({"dense": dense, "kernel": kernel})

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: seeds.Seed
    ) -> ForwardPass:
        del training, seed
        kernels = weights.trainable
        values = tf.nn.conv2d(features, kernels["kernel"], 1, "VALID")
        values = tf.nn.max_pool2d(tf.nn.relu(values), 2, 2, "VALID")
        logits = tf.reshape(values, [-1, 12 * 12 * 4]) @ kernels["dense"]
        return ForwardPass(last(logits), weights.state, 0.0)

    return Model(
        init=init,
        forward=forward,
        loss=sparse_cross_entropy,
        metrics={"accuracy": accuracy},
        name="convolution",
    )


def release_of(name: str, variant: str) -> Release:
    """As much of a record as a page shows."""
    chosen = Variant.model_construct(
        target="web",
        name=variant,
        recommended=True,
        size_bytes=1000,
        scores={"accuracy": 0.5},
    )
    return Release.model_construct(
        name=name,
        version=1,
        created="2026-01-01T00:00:00+00:00",
        release_status="simulation",
        privacy_statement="No row stands out & none is named.",
        evaluation="four rows",
        variants=[chosen],
    )
