from dataclasses import replace

import numpy as np
import pytest

from fedtrain.data.dataset import FederatedDataset, from_clients
from fedtrain.data.examples import Examples
from fedtrain.data.fingerprint import data_sha256
from fedtrain.data.packed import open_packed, pack


def rows(first: float = 0.0, count: int = 3) -> Examples:
    number = np.arange(count, dtype=np.float32) + first
    return Examples(
        features={"a": number[:, None], "b": number},
        labels=(number % 2).astype(np.int32),
        weights=number,
        entity_ids=number.astype(np.int64),
    )


def dataset(**clients: Examples) -> FederatedDataset:
    return from_clients(clients or {"x": rows(), "y": rows(7.0), "z": rows(count=0)})


def with_one_change(array: str) -> FederatedDataset:
    changed = dataset()
    values = changed.examples
    found = values.features[array] if array in "ab" else getattr(values, array)
    found[-1] += 1
    return changed


def test_same_rows_have_the_same_fingerprint_whatever_the_data_set_is_called() -> None:
    assert data_sha256(dataset()) == data_sha256(replace(dataset(), name="other"))


@pytest.mark.parametrize("array", ["a", "b", "labels", "weights", "entity_ids"])
def test_one_value_changes_it(array: str) -> None:
    assert data_sha256(dataset()) != data_sha256(with_one_change(array))


@pytest.mark.parametrize(
    "other",
    [
        dataset(x=rows(), y=rows(7.0), w=rows(count=0)),
        dataset(y=rows(), x=rows(7.0), z=rows(count=0)),
        dataset(x=rows(), z=rows(count=0), y=rows(7.0)),
        dataset(x=rows(7.0), y=rows(), z=rows(count=0)),
        dataset(x=rows(), y=rows(7.0)),
    ],
    ids=["name", "exchanged", "empty_moved", "order", "empty_left_out"],
)
def test_another_division_into_clients_changes_it(other: FederatedDataset) -> None:
    assert data_sha256(dataset()) != data_sha256(other)


def test_type_and_shape_count_too() -> None:
    def labelled(labels: object) -> FederatedDataset:
        labels = np.asarray(labels)
        return from_clients({"x": Examples(features=labels, labels=labels)})

    wide = labelled(np.zeros([2, 2], np.int32))
    found = {
        data_sha256(wide),
        data_sha256(labelled(np.zeros([2, 1], np.int64))),
        data_sha256(labelled(np.zeros([2, 2], np.float32))),
    }
    assert len(found) == 3


def test_packed_rows_are_told_apart_without_reading_them(tmp_path) -> None:
    first = data_sha256(pack(dataset(), tmp_path / "p"))
    for file in tmp_path.glob("p/array_*.bin"):
        file.write_bytes(bytes(file.stat().st_size))  # would change what is read
    assert data_sha256(open_packed(tmp_path / "p")) == first
    pack(with_one_change("a"), tmp_path / "p", overwrite=True)
    assert data_sha256(open_packed(tmp_path / "p")) != first


def test_rows_held_out_of_packed_rows_show(tmp_path) -> None:
    packed = pack(dataset(), tmp_path / "p")
    fewer = replace(
        packed, examples=packed.examples.slice(0, 5), offsets=np.array([0, 3, 5, 5])
    )
    assert data_sha256(fewer) != data_sha256(packed)
