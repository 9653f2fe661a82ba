import numpy as np
import pytest

from fedtrain.core.errors import DataError
from fedtrain.data.readers import from_dataframe
from fedtrain.data.sets.shakespeare import encoded

tff = pytest.importorskip("tensorflow_federated")
import tensorflow as tf  # noqa: E402 - after the skip

from fedtrain.data.readers import tff as reader  # noqa: E402 - after the skip

pytestmark = pytest.mark.tff


def test_client_data_is_read_by_client():
    client_data = tff.simulation.datasets.TestClientData(
        {
            "a": {"pixels": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]},
            "b": {"pixels": [[5.0, 6.0]], "label": [1]},
        }
    )
    dataset = from_dataframe(
        reader.table(client_data), label="label", client="client_id"
    )
    assert list(dataset.client_ids) == ["a", "b"]
    assert dataset.client(1).features.tolist() == [[5, 6]]
    with pytest.raises(DataError, match="ClientData, got"):
        list(reader.clients({}))


def test_shakespeare_is_encoded_as_by_tff():
    snippets = [b"Hark!", b"\xc3 What ~ light\n" * 20, b"x" * 79, b"y" * 78]
    spec = tff.simulation.baselines.ClientSpec(
        num_epochs=1, batch_size=100, shuffle_buffer_size=1
    )
    task = tff.simulation.baselines.shakespeare.create_character_prediction_task(
        spec, sequence_length=80, use_synthetic_data=True
    )
    preprocess = task.datasets.train_preprocess_fn
    theirs = preprocess(tf.data.Dataset.from_tensor_slices({"snippets": snippets}))
    features, labels = next(theirs.as_numpy_iterator())
    ours = encoded(snippets, sequence_length=80)
    assert np.array_equal(ours.features, features)
    assert np.array_equal(ours.labels, labels)
