from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.histogram.summary import histogram_pb

from fedtrain.core.errors import ConfigError
from fedtrain.models.model import ModelWeights
from fedtrain.rounds.report import RoundReport
from fedtrain.rounds.round import ServerState
from fedtrain.tracking.tensorboard import named_leaves, tensorboard_log

WEIGHTS = ModelWeights(trainable=[{"kernel": tf.ones([2, 3]), "bias": tf.zeros([3])}])
STATE = ServerState(tf.constant(1), WEIGHTS, (), ())
METRICS = {"loss": 0.5, "test_loss": 0.75, "test_accuracy": 0.25}


def write(log_dir, statement="a statement"):
    with tensorboard_log(log_dir, privacy_statement=statement) as on_round:
        report = RoundReport(round_number=0, metrics=METRICS, spent_epsilon=1.5)
        on_round(report, STATE)


def read(log_dir):
    events = EventAccumulator(str(log_dir))
    events.Reload()
    return events


def value(events, tag):
    return float(tf.make_ndarray(events.Tensors(tag)[0].tensor_proto))


def test_train_and_test_share_names_in_two_folders(tmp_path):
    write(tmp_path)
    train, test = read(tmp_path / "train"), read(tmp_path / "test")
    assert value(train, "loss") == pytest.approx(0.5)
    assert value(test, "loss") == pytest.approx(0.75)
    assert value(test, "accuracy") == pytest.approx(0.25)


def test_epsilon_carries_its_statement(tmp_path):
    write(tmp_path)
    train = read(tmp_path / "train")
    assert value(train, "privacy/epsilon") == pytest.approx(1.5)
    description = train.SummaryMetadata("privacy/epsilon").summary_description
    assert description == "a statement"


def test_weights_have_histograms(tmp_path):
    write(tmp_path)
    tags = read(tmp_path / "train").Tags()["tensors"]
    assert "weights/trainable/0/kernel" in tags
    assert "weights/trainable/0/bias" in tags


def test_histograms_count_as_tensorboard_does(tmp_path):
    kernel = np.random.Generator(np.random.Philox(1)).normal(size=[40, 30])
    state = STATE._replace(weights=ModelWeights([tf.constant(kernel, tf.float32)]))
    with tensorboard_log(tmp_path) as on_round:
        on_round(RoundReport(round_number=0, metrics={}), state)
    own = read(tmp_path / "train").Tensors("weights/trainable/0")
    theirs = histogram_pb("", kernel.astype(np.float32)).value[0].tensor
    np.testing.assert_allclose(
        tf.make_ndarray(own[0].tensor_proto), tf.make_ndarray(theirs), rtol=1e-5
    )


def test_an_epsilon_without_statement_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="privacy_statement"):
        write(tmp_path, statement=None)


def test_leaves_are_named_by_their_path():
    leaves = named_leaves(ModelWeights(trainable={"a": (1, 2)}, state=[3]))
    assert leaves == {"trainable/a/0": 1, "trainable/a/1": 2, "state/0": 3}


def test_events_are_on_disk_while_the_run_goes_on(tmp_path):
    with tensorboard_log(tmp_path) as on_round:
        on_round(RoundReport(round_number=0, metrics={"loss": 1.0}), STATE)
        assert any(file.stat().st_size for file in Path(tmp_path).glob("train/*"))
