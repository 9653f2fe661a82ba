import hashlib
import io
import json
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import CheckpointError
from fedtrain.models.model import ModelWeights
from fedtrain.rounds.checkpoint import (
    Checkpoint,
    CheckpointStore,
    from_bytes,
    packed_like,
    to_bytes,
)
from fedtrain.rounds.round import ServerState


def state(value, size=3):
    weights = ModelWeights({"w": tf.fill([size], float(value))})
    return ServerState(tf.constant(value), weights, (tf.constant(0),), ())


def saved(store, number, client_states=None, head=None):
    return store.save(Checkpoint(number, state(number), client_states or {}, head))


def test_what_is_saved_comes_back(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    clients = {"a": (tf.constant([1.0, 2.0]), tf.constant(3))}
    saved(store, 4, clients, {"length": 2, "hash": "ab"})
    found = store.latest(state(0))
    assert found.round_number == 4
    assert found.ledger_head == {"length": 2, "hash": "ab"}
    np.testing.assert_array_equal(found.state.weights.trainable["w"], [4.0] * 3)
    assert isinstance(found.state, ServerState)
    restored = packed_like(found.client_states["a"], clients["a"])
    np.testing.assert_array_equal(restored[0], [1.0, 2.0])
    assert int(restored[1]) == 3


def test_two_generations_stay(tmp_path):
    store = CheckpointStore(tmp_path)
    for number in range(1, 5):
        saved(store, number)
    assert len(list(tmp_path.iterdir())) == 2
    assert store.latest(state(0)).round_number == 4


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "header"])
def test_a_damaged_file_falls_back_one_generation(tmp_path, damage, caplog):
    store = CheckpointStore(tmp_path)
    saved(store, 1)
    path = saved(store, 2)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-40] ^= 1
    kept = {
        "truncate": content[: len(content) // 2],
        "empty": b"",
        "flip": content,
        "header": bytes(content).replace(b'"round_number": 2', b'"round_number": 9'),
    }
    path.write_bytes(kept[damage])
    assert store.latest(state(0)).round_number == 1
    assert "damaged" in caplog.text


def test_all_damaged_is_an_error_with_a_way_out(tmp_path):
    store = CheckpointStore(tmp_path)
    saved(store, 1).write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="Every checkpoint"):
        store.latest(state(0))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    store = CheckpointStore(tmp_path)
    saved(store, 1)
    with pytest.raises(CheckpointError, match=r"another model.*float32\[3\]"):
        store.latest(state(0, size=5))


def test_no_checkpoint_yet(tmp_path):
    assert CheckpointStore(tmp_path / "none").latest(state(0)) is None


def test_checkpoints_are_due_every_k_rounds_and_at_the_end(tmp_path):
    store = CheckpointStore(tmp_path, every=4)
    assert [n for n in range(1, 11) if store.is_due(n, 10)] == [4, 8, 10]


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    body = io.BytesIO()
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(state(3))]
    np.savez(body, **{f"state_{i}": leaf for i, leaf in enumerate(leaves)})
    header = {
        "round_number": 3,
        "leaves": [[list(leaf.shape), leaf.dtype.name] for leaf in leaves],
        "client_ids": [],
        "ledger_head": None,
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(body.getvalue())
    line = json.dumps({**header, "sha256": digest.hexdigest()}).encode()
    (tmp_path / "round-00000003.ckpt").write_bytes(line + b"\n" + body.getvalue())
    found = CheckpointStore(tmp_path).latest(state(0))
    assert found.round_number == 3
    np.testing.assert_array_equal(found.state.weights.trainable["w"], [3.0] * 3)


def test_saving_takes_less_memory_than_one_more_model(tmp_path):
    large = state(1, size=20_000_000)
    tracemalloc.start()
    try:
        CheckpointStore(tmp_path).save(Checkpoint(1, large, {}, None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * 80_000_000  # numpy writes in parts of 16 MiB


def test_what_travels_is_what_is_saved(tmp_path):
    checkpoint = Checkpoint(2, state(2), {}, None)
    path = CheckpointStore(tmp_path).save(checkpoint)
    for content in (to_bytes(checkpoint), path.read_bytes()):
        found = from_bytes(content, state(0), name="it")
        np.testing.assert_array_equal(found.state.weights.trainable["w"], [2.0] * 3)
    with pytest.raises(CheckpointError, match="it is damaged"):
        from_bytes(content[:-1], state(0), name="it")
