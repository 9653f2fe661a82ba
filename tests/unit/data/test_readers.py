import gzip

import fsspec
import h5py
import numpy as np
import pandas as pd
import pytest
import sqlalchemy
import tensorflow as tf

from fedtrain.core.errors import ConfigError, DataError
from fedtrain.data.packed import pack
from fedtrain.data.readers import from_dataframe, read
from fedtrain.data.readers.hdf5 import clients
from fedtrain.data.readers.read import read_table
from fedtrain.data.tabular import schema_of


def frame():
    return pd.DataFrame(
        {
            "bank": ["007", "1", "007", "1"],
            "age": [20.0, 40.0, 60.0, 80.0],
            "job": ["cook", "nurse", "cook", "judge"],
            "default": [0, 1, 0, 1],
            "customer": [5, 6, 5, 7],
            "w": [1.0, 2.0, 1.0, 2.0],
        }
    )


ROLES = {"label": "default", "client": "bank", "entity": "customer", "weight": "w"}
KINDS = ("csv.gz", "parquet", "npz", "tfrecord", "sql")


def write(kind, folder, rows):
    path = str(folder / f"loans.{kind}")
    options = {}
    if kind == "csv.gz":
        rows.to_csv(path, index=False)
    elif kind == "parquet":
        pytest.importorskip("pyarrow", exc_type=ImportError)
        rows.to_parquet(path)
    elif kind == "npz":
        columns = {name: rows[name].to_numpy() for name in rows}
        np.savez(
            path,
            **{
                n: v.astype(str) if v.dtype == object else v for n, v in columns.items()
            },
        )
    elif kind == "tfrecord":
        with tf.io.TFRecordWriter(path) as writer:
            for row in rows.to_dict("records"):
                writer.write(example(row))
    elif kind == "sql":
        path = f"sqlite:///{folder}/loans.db"
        engine = sqlalchemy.create_engine(path)
        rows.to_sql("loans", engine, index=False)
        engine.dispose()
        options = {"query": "select * from loans"}
    return path, options


def example(row):
    def feature(value):
        if isinstance(value, str):
            return tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[value.encode()])
            )
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = {name: feature(value) for name, value in row.items()}
    return tf.train.Example(
        features=tf.train.Features(feature=features)
    ).SerializeToString()


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_rows(kind, tmp_path):
    source, options = write(kind, tmp_path, frame())
    dataset = read(source, **ROLES, **options)
    expected = from_dataframe(frame(), **ROLES)
    assert list(dataset.client_ids) == ["007", "1"]
    assert dataset.sensitivity == "private"
    assert np.array_equal(dataset.offsets, [0, 2, 4])
    assert np.array_equal(dataset.examples.features, expected.examples.features)
    assert np.array_equal(dataset.examples.labels, [0, 0, 1, 1])
    assert np.array_equal(dataset.examples.weights, [1, 1, 2, 2])
    ids = dataset.client(0).entity_ids
    assert ids[0] == ids[1]
    assert np.array_equal(dataset.examples.entity_ids, expected.examples.entity_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_value_is_refused_until_a_schema_allows_it(kind, tmp_path):
    rows = frame()
    rows.loc[2, "age"] = np.nan
    source, options = write(kind, tmp_path, rows)
    with pytest.raises(
        DataError,
        match=r"loans.* client '007', row 2 .*'age', .*: a value is missing\.",
    ):
        read(source, **ROLES, **options)
    looked_at = read(source, **ROLES, **options, allow_missing=True)
    allowed = read(source, schema=schema_of(looked_at), **options)
    assert "age is missing" in allowed.info["feature_names"]
    assert allowed.examples.features[1, :2].tolist() == [0, 1]  # the second of 007


def test_a_url_of_another_filesystem(tmp_path):
    with fsspec.open("memory://folder/loans.csv", "w") as file:
        frame().to_csv(file, index=False)
    assert read("memory://folder/loans.csv", **ROLES).num_clients == 2
    with pytest.raises(DataError, match=r"memory://folder/none\.csv"):
        read("memory://folder/none.csv", **ROLES)
    with pytest.raises(DataError, match="nowhere"):
        read("nowhere://folder/none.csv", **ROLES)


def test_each_file_is_a_client_and_empty_ones_are_kept(tmp_path):
    for bank, rows in frame().groupby("bank"):
        rows.drop(columns="bank").to_csv(tmp_path / f"bank_{bank}.csv", index=False)
    frame().drop(columns="bank")[:0].to_csv(tmp_path / "bank_new.csv", index=False)
    dataset = read(tmp_path / "*.csv", label="default", features=["age", "job"])
    assert list(dataset.client_ids) == ["bank_007", "bank_1", "bank_new"]
    assert dataset.num_examples().tolist() == [2, 2, 0]


def test_a_word_for_nothing_is_a_text_among_words_and_missing_among_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("site,job,age,y\nNA,None,1,0\nB,cook,NA,1\nB,cook,3,1\n")
    roles = {"label": "y", "client": "site"}
    with pytest.raises(DataError, match=r"client 'B', row 1 .*'age', .*is missing"):
        read(path, **roles)
    looked_at = read(path, **roles, allow_missing=True)
    assert list(looked_at.client_ids) == ["B", "NA"]
    names = ("age", "age is missing", "job=None", "job=cook")
    assert set(looked_at.info["feature_names"]) == set(names)
    again = read(path, schema=schema_of(looked_at))
    assert np.array_equal(again.examples.features, looked_at.examples.features)
    path.write_text("site,job,age,y\nA,,1,0\n")
    with pytest.raises(
        DataError, match=r"row 0 .*'job', value nan: a value is missing"
    ):
        read(path, schema=schema_of(looked_at))


def test_a_schema_says_which_words_for_nothing_are_texts(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("grade,y\n1,0\n10+,1\nNA,1\n")
    schema = schema_of(read(path, label="y", allow_missing=True))
    assert schema.features[0].categories.values == ("1", "10+")
    rows = read(path, schema=schema).examples.features
    assert rows.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # the last is missing


def test_a_file_that_alone_matches_a_pattern_is_a_client_by_its_name(tmp_path):
    rows = frame().drop(columns="bank")
    rows.to_csv(tmp_path / "bank_007.csv", index=False)
    dataset = read(tmp_path / "bank_*.csv", label="default")
    assert list(dataset.client_ids) == ["bank_007"]
    assert read(tmp_path / "bank_007.csv", label="default").client_ids[0] == "all"
    own = read(tmp_path / "bank_*.csv", label="default", client="job")
    assert list(own.client_ids) == ["cook", "judge", "nurse"]
    assert "client_id" not in own.info["feature_names"]


def test_files_that_say_themselves_who_their_clients_are_are_refused(tmp_path):
    rows = frame().rename(columns={"bank": "client_id"})
    for number in range(2):
        rows.to_csv(tmp_path / f"part_{number}.csv", index=False)
    with pytest.raises(DataError, match="'part_0' has a column 'client_id' of its own"):
        read(tmp_path / "part_*.csv", label="default", client="client_id")


def test_rows_of_a_query_have_no_file_for_a_client(tmp_path):
    rows = frame().drop(columns="bank")
    source, options = write("sql", tmp_path, rows)
    dataset = read(f"{source}?timeout=9", label="default", **options)
    assert list(dataset.client_ids) == ["all"]


@pytest.mark.parametrize("column", ["age", "image"])
def test_a_table_without_rows_is_named(tmp_path, column):
    table = {"age": np.arange(4.0), "image": np.ones([4, 2, 2]), "y": np.arange(4) % 2}
    schema = schema_of(from_dataframe(table, label="y", features=[column]))
    empty = {name: values[:0] for name, values in table.items()}
    np.savez(tmp_path / "empty.npz", **empty)
    with pytest.raises(DataError, match=r"empty\.npz has no rows\."):
        read(tmp_path / "empty.npz", schema=schema)


def test_a_second_file_is_held_to_the_first_ones_schema(tmp_path):
    frame().to_csv(tmp_path / "first.csv", index=False)
    dataset = read(tmp_path / "first.csv", **ROLES)
    schema_of(dataset).save(tmp_path / "schema.json")
    other = frame()[1:]
    other.loc[1, "job"] = "pilot"
    other.to_csv(tmp_path / "second.csv", index=False)
    with pytest.raises(DataError, match=r"second\.csv: client '1', row 0 .*'pilot'"):
        read(tmp_path / "second.csv", schema=tmp_path / "schema.json")
    with pytest.raises(ConfigError, match="label='age', but the schema says 'default'"):
        read(tmp_path / "first.csv", schema=schema_of(dataset), label="age")


def test_tffs_hdf5_is_read_by_client(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        for client_id, start in (("x", 0), ("y", 2)):
            group = file.create_group(f"examples/{client_id}")
            group["pixels"] = np.arange(8, dtype=np.float32).reshape(2, 4) + start
            group["label"] = np.array([start, start + 1], np.int32)
    dataset = read(tmp_path / "data.h5", label="label")
    assert list(dataset.client_ids) == ["x", "y"]
    assert dataset.client(1).features.tolist() == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert [client_id for client_id, _ in clients(str(tmp_path / "data.h5"))] == [
        *("x", "y")
    ]
    with h5py.File(tmp_path / "data.h5", "a") as file:
        file["examples/y/pixels"][1, 3] = np.nan
    with pytest.raises(DataError, match=r"client 'y', row 3 .*'pixels', .*holds NaN"):
        read(tmp_path / "data.h5", label="label")


def test_a_packed_folder_keeps_its_schema(tmp_path):
    dataset = from_dataframe(frame(), **ROLES)
    pack(dataset, tmp_path / "packed")
    opened = read(tmp_path / "packed")
    assert schema_of(opened) == schema_of(dataset)


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", labels=np.array([{}, {}], object))
    with pytest.raises(DataError, match="not a usable npz"):
        read(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none.csv", {"label": "y"}, "none.csv' cannot be read"),
        ("data.bin", {"label": "y"}, "format of .* is not known"),
        ("*.csv", {"label": "y"}, "No file matches"),
        ("a.csv.gz", {"label": "z"}, "no column 'z'; there are: x, y"),
        ("a.csv.gz", {}, "label is needed: .* one of x, y"),
        ("a.csv.gz", {"label": "y", "sheet": 1}, "no option 'sheet'"),
        ("a.csv.gz", {"label": "y", "format": "xls"}, "format must be one of"),
        ("a.csv.gz", {"label": "y", "format": "hdf5"}, "not an HDF5 file"),
        ("a.csv.gz", {"label": "y", "format": "tfrecord"}, "not a file of tf.train"),
    ],
)
def test_unusable_sources_say_why(tmp_path, name, options, message):
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("x,y\n1,0\n2,1\n")
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / name, **options)


def test_numbers_of_a_csv_file_are_those_that_were_written(tmp_path):
    numbers = [2.536929570131888, -1.0000000000000002, 1e-300]  # hard to round
    frame = pd.DataFrame({"x": numbers, "label": [0, 1, 0]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert list(read_table(tmp_path / "rows.csv")["x"]) == numbers
