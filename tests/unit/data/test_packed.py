import json
from pathlib import Path

import numpy as np
import pytest

from fedtrain.core.errors import DataError
from fedtrain.data.dataset import FederatedDataset, from_clients
from fedtrain.data.dataset_check import check_dataset
from fedtrain.data.examples import Examples, feature_arrays
from fedtrain.data.packed import open_packed, pack, verify_packed


def rows(count, start=0):
    number = np.arange(start, start + count, dtype=np.float32)
    return Examples(
        features={"a": number[:, None] * [1, 2], "b'": number.astype(np.int32)},
        labels=(number % 2).astype(np.int32),
        weights=number,
    )


def clients():
    return {"Zürich": rows(3), "empty": rows(0), "b": rows(2, start=3)}


@pytest.mark.parametrize("streamed", [True, False])
def test_what_was_packed_is_what_is_opened(tmp_path, streamed):
    source = from_clients(clients(), sensitivity="public", name="towns")
    pack(clients().items() if streamed else source, tmp_path / "p", name="towns")
    opened = open_packed(tmp_path / "p")
    assert list(opened.client_ids) == ["Zürich", "empty", "b"]
    assert opened.num_examples().tolist() == [3, 0, 2]
    assert opened.sensitivity == ("private" if streamed else "public")
    assert opened.name == "towns"
    for position in range(3):
        mine, theirs = opened.client(position), source.client(position)
        assert mine.features["a"].dtype == theirs.features["a"].dtype
        for name in ("a", "b'"):
            assert np.array_equal(mine.features[name], theirs.features[name])
        assert np.array_equal(mine.labels, theirs.labels)
        assert np.array_equal(mine.weights, theirs.weights)
    verify_packed(tmp_path / "p")


def test_rows_are_mapped_not_read(tmp_path):
    opened = pack(clients().items(), tmp_path / "p")
    assert isinstance(opened.examples.labels.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.examples.labels[0] = 1


def test_a_failed_pack_leaves_nothing(tmp_path):
    def broken():
        yield "a", rows(2)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        pack(broken(), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a", rows(1)), ("b", rows(1)), ("a", rows(1))], "positions 0 and 2"),
        (
            [
                ("a", Examples(features=np.zeros([1, 2]), labels=np.zeros(1))),
                ("b", Examples(features=np.zeros([1, 3]), labels=np.zeros(1))),
            ],
            r"client 'b': features has rows of shape \(3,\)",
        ),
        (
            [("a", Examples(features=np.array(["x"]), labels=np.zeros(1)))],
            "packed arrays hold numbers",
        ),
        ([], "no clients"),
        (
            [("a", Examples(features=np.array([[1.0, np.nan]]), labels=np.zeros(1)))],
            r"client 'a': row 0 .*features\[1\]: nan is not a finite",
        ),
    ],
)
def test_unfit_clients_are_named(tmp_path, pairs, message):
    with pytest.raises(DataError, match=message):
        pack(iter(pairs), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_damage_is_noticed(tmp_path):
    pack(clients().items(), tmp_path / "p")
    with pytest.raises(DataError, match="already there"):
        pack(clients().items(), tmp_path / "p")
    labels = json.loads((tmp_path / "p/header.json").read_text())["arrays"]["labels"]
    path = tmp_path / "p" / labels["file"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x07")
    with pytest.raises(DataError, match=f"{path.name} has SHA-256"):
        verify_packed(tmp_path / "p")
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="damaged"):
        open_packed(tmp_path / "p")


def test_other_versions_and_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="not a packed data set"):
        open_packed(tmp_path)
    (tmp_path / "header.json").write_text('{"format": "fedtrain-packed", "version": 9}')
    with pytest.raises(DataError, match="pack the data again"):
        open_packed(tmp_path)
    with pytest.raises(DataError, match="is a URL"):
        open_packed("s3://bucket/p")


def test_labels_of_packed_rows_are_still_checked(tmp_path):
    opened = pack(clients().items(), tmp_path / "p")
    assert check_dataset(opened, num_classes=2) == 1
    with pytest.raises(DataError, match=r"client 'Zürich', row 1 .*1 is outside"):
        check_dataset(opened, num_classes=1)


@pytest.mark.parametrize(
    "positions", [[0, 1, 2], [2], [1, 0], [0, 2], [2, 2, 0], []], ids=str
)
def test_clients_read_in_one_go_are_those_read_one_by_one(tmp_path, positions):
    source = from_clients(clients())
    for data in (source, pack(source, tmp_path / "p")):
        at = np.array(positions, np.int64)
        assert data.client_ids_at(at) == [data.client_id(i) for i in positions]
        together = data.clients(at)
        assert len(together) == len(positions)
        for position, own in zip(positions, together, strict=True):
            for name, array in feature_arrays(data.client(position).features):
                assert np.array_equal(dict(feature_arrays(own.features))[name], array)
            assert np.array_equal(own.weights, data.client(position).weights)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_memory_of_mapped_rows_is_given_back(tmp_path):
    many = {f"{i}": rows(1000, start=1000 * i) for i in range(300)}
    opened = pack(many.items(), tmp_path / "p")
    opened.examples.labels.sum()
    before = _mapped_kib(tmp_path / "p")
    opened.clients(np.array([0, 2]))
    assert before > 1000
    assert _mapped_kib(tmp_path / "p") < before / 10
    assert opened.client(299).labels.tolist() == many["299"].labels.tolist()


def test_rows_changed_in_a_private_copy_of_a_map_stay_changed(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones([40, 2], np.float32))
    features = np.load(tmp_path / "rows.npy", mmap_mode="c")
    features /= 4.0
    data = FederatedDataset(
        examples=Examples(features=features, labels=np.zeros(40, np.int64)),
        offsets=np.arange(0, 41, 10),
        client_ids=["a", "b", "c", "d"],
    )
    for _ in range(2):
        assert data.clients(np.array([0, 2]))[1].features.max() == 0.25


def _mapped_kib(folder):
    """KiB of the process's memory that are pages of files in ``folder``."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = str(folder) in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total
