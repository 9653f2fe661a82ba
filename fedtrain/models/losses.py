"""Losses and metrics that add up over rows, as functions of labels and outputs."""

from typing import Any

import tensorflow as tf

from fedtrain.models.model import PerExample


def sparse_cross_entropy(labels: Any, outputs: Any) -> PerExample:
    """Cross-entropy of integer labels [batch] and logits [batch, classes]."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.cast(tf.reshape(labels, [-1]), tf.int32), outputs
    )
    return PerExample(losses, tf.ones_like(losses))


def binary_cross_entropy(labels: Any, outputs: Any) -> PerExample:
    """Cross-entropy of labels 0 or 1 and one logit for each row."""
    logits = tf.reshape(outputs, [-1])
    labels = tf.cast(tf.reshape(labels, [-1]), logits.dtype)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
    return PerExample(losses, tf.ones_like(losses))


def squared_error(labels: Any, outputs: Any) -> PerExample:
    """Squared difference, averaged over the outputs of a row."""
    outputs = tf.reshape(outputs, [tf.shape(outputs)[0], -1])
    labels = tf.reshape(tf.cast(labels, outputs.dtype), tf.shape(outputs))
    losses = tf.reduce_mean(tf.square(outputs - labels), axis=-1)
    return PerExample(losses, tf.ones_like(losses))


def masked_token_cross_entropy(labels: Any, outputs: Any) -> PerExample:
    """Cross-entropy over the tokens of a row; label 0 is padding and does not count.

    Labels are [batch, time], outputs logits [batch, time, vocabulary].
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.cast(labels, tf.int32), outputs
    )
    real = tf.cast(tf.not_equal(labels, 0), losses.dtype)
    return PerExample(tf.reduce_sum(losses * real, -1), tf.reduce_sum(real, -1))


def accuracy(labels: Any, outputs: Any) -> PerExample:
    """Share of rows whose largest logit is the label's."""
    predicted = tf.argmax(outputs, axis=-1, output_type=tf.int32)
    hits = tf.equal(predicted, tf.cast(tf.reshape(labels, [-1]), tf.int32))
    values = tf.cast(hits, tf.float32)
    return PerExample(values, tf.ones_like(values))


def binary_accuracy(labels: Any, outputs: Any) -> PerExample:
    """Share of rows whose logit has the sign of the label."""
    predicted = tf.reshape(outputs, [-1]) > 0
    hits = tf.equal(predicted, tf.reshape(tf.cast(labels, tf.float32), [-1]) > 0.5)
    values = tf.cast(hits, tf.float32)
    return PerExample(values, tf.ones_like(values))


def masked_token_accuracy(labels: Any, outputs: Any) -> PerExample:
    """Share of real tokens (label not 0) that are predicted right."""
    predicted = tf.argmax(outputs, axis=-1, output_type=tf.int32)
    labels = tf.cast(labels, tf.int32)
    real = tf.cast(tf.not_equal(labels, 0), tf.float32)
    hits = tf.cast(tf.equal(predicted, labels), tf.float32) * real
    return PerExample(tf.reduce_sum(hits, -1), tf.reduce_sum(real, -1))
