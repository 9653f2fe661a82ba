"""What bad input gets: one screen, exit code 2, and nothing written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedtrain.cli.main import run as run_command
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.data.packed import pack

PROJECT = """
name = "own"
seed = 1
[data]
path = "rows.csv"
label = "outcome"
client = "hospital"
sensitivity = "public"
test_fraction = 0.2
[model]
name = "dense_classifier"
[rounds]
num_rounds = 2
[client]
learning_rate = 0.1
batch_size = 8
local_epochs = 1
[evaluation]
baselines = false
[tracking]
tensorboard = false
html_report = false
"""
ROW_PRIVACY = [
    'privacy={unit="example", trust="local", neighboring_relation="add_or_remove_one",'
    ' delta=1e-3, sampling="poisson", clipping_norm=1.0, noise_multiplier=2.0}',
    "client={learning_rate=0.1, sampling_rate=0.5, local_steps=1,"
    " expected_batch_size=5}",
]
CLIENT_PRIVACY = (
    'privacy={unit="client", trust="central", neighboring_relation="add_or_remove_one",'
    ' delta=1e-3, sampling="full", clipping_norm=1.0, noise_multiplier=2.0}'
)
KERAS_MODEL = """
import keras
def model():
    network = keras.Sequential([keras.layers.Input([2]), *LAYERS])
    network.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network
"""


def rows() -> pd.DataFrame:
    random = np.random.Generator(np.random.Philox(1))
    frame = pd.DataFrame(random.normal(size=[40, 2]), columns=["age", "dose"])
    frame["outcome"] = (frame["age"] + frame["dose"] > 0).astype(int)
    frame["hospital"] = [f"h{i % 4}" for i in range(40)]
    return frame


@pytest.fixture
def refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """Runs a project with ``settings``; checks the error and gives its text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "federation.toml").write_text(PROJECT)
    rows().to_csv(tmp_path / "rows.csv", index=False)

    def run(*settings: str, frame: Any = None) -> str:
        if frame is not None:
            frame.to_csv(tmp_path / "rows.csv", index=False)
        before = sorted(tmp_path.rglob("*.*"))
        words = [word for setting in settings for word in ("-s", setting)]
        code = run_command(["simulate", "federation.toml", *words])
        output, errors = capsys.readouterr()
        assert code == 2, errors
        assert output == ""
        assert "Traceback" not in errors
        assert len(errors.splitlines()) <= 24, "more than a screen"
        assert sorted(tmp_path.rglob("*.*")) == before, "something was written"
        return errors

    return run


def keras_layers(folder: Path, layers: str) -> str:
    (folder / "model.py").write_text(KERAS_MODEL.replace("*LAYERS", layers))
    return 'model={path="model.py"}'


def test_the_project_itself_runs(
    tmp_path: Path, refused: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = rows()
    frame.loc[frame["hospital"] == "h3", "hospital"] = "h2"
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert run_command(["simulate", "federation.toml"]) == 0
    assert "No privacy" in capsys.readouterr().out


def test_a_client_without_rows_is_skipped_and_counted(
    tmp_path: Path, refused: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for hospital, own in rows().groupby("hospital"):
        own.drop(columns="hospital").to_csv(tmp_path / f"of_{hospital}.csv")
    own[:0].drop(columns="hospital").to_csv(tmp_path / "of_h9.csv")
    data = 'data={path="of_*.csv", label="outcome", features=["age", "dose"], '
    data += 'sensitivity="public", test_fraction=0.2}'
    words = ["-s", data, "-s", "rounds.num_rounds=1"]
    assert run_command(["simulate", "federation.toml", *words]) == 0
    assert "Clients without rows: 1" in capsys.readouterr().out


def test_unknown_key_names_file_key_and_value(refused: Any) -> None:
    errors = refused("rounds.num_round=3")
    for word in ("federation.toml", "rounds.num_round", "3", "num_rounds"):
        assert word in errors


def test_model_whose_output_does_not_fit_the_labels(
    tmp_path: Path, refused: Any
) -> None:
    frame = rows()
    frame["outcome"] = np.arange(40) % 3
    errors = refused(keras_layers(tmp_path, "keras.layers.Dense(2)"), frame=frame)
    assert "3 labels" in errors
    assert "Give the last layer 3 units" in errors


@pytest.mark.parametrize(
    ("units", "loss", "message"),
    [
        (1, "SparseCategoricalCrossentropy", "needs one for each class"),
        (2, "BinaryCrossentropy", "end in Dense(1)"),
        (2, "CategoricalCrossentropy", "need SparseCategoricalCrossentropy"),
    ],
)
def test_loss_that_cannot_take_the_labels(
    tmp_path: Path, refused: Any, units: int, loss: str, message: str
) -> None:
    layers = keras_layers(tmp_path, f"keras.layers.Dense({units})")
    code = (tmp_path / "model.py").read_text()
    (tmp_path / "model.py").write_text(
        code.replace("SparseCategoricalCrossentropy", loss)
    )
    assert message in " ".join(refused(layers).split())


def test_numbers_to_predict_with_a_classifier(refused: Any) -> None:
    errors = refused(frame=rows().assign(outcome=rows()["dose"]))
    assert "one label a row" in errors


def test_model_that_does_not_take_the_features(tmp_path: Path, refused: Any) -> None:
    frame = rows().assign(extra=1.0)
    errors = refused(keras_layers(tmp_path, "keras.layers.Dense(2)"), frame=frame)
    assert "cannot take the rows of rows" in errors
    assert "(1, 3)" in errors, "what does not fit is said"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_package", "cannot be imported"),
        ("def other(): pass", "has no function 'model'"),
        ("def model(): return [][0]", "IndexError('list index out of range')"),
    ],
)
def test_model_file_that_is_of_no_use(
    tmp_path: Path, refused: Any, code: str, message: str
) -> None:
    (tmp_path / "model.py").write_text(code)
    assert message in refused('model={path="model.py"}')


def test_nan_in_data_names_client_row_column_and_value(
    refused: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    describe = ["data", "describe", "federation.toml", "--schema"]
    assert run_command([*describe, "whole.json"]) == 0
    capsys.readouterr()
    with_gap = rows()
    with_gap.loc[5, "dose"] = np.nan
    for settings in ([], ['data.schema_path="whole.json"']):
        errors = refused(*settings, frame=with_gap)
        for word in (
            "rows.csv",
            "'h1'",
            "row 5",
            "'dose'",
            "missing",
            "describe --schema",
        ):
            assert word in errors
    pack = ["data", "pack", "rows.csv", "packed", "-s", "label=outcome"]
    assert run_command(pack) == 2
    assert not Path("packed").exists()
    assert run_command([*describe, "gaps.json"]) == 0
    declared = ["-s", 'data.schema_path="gaps.json"', "-s", "rounds.num_rounds=1"]
    assert run_command(["simulate", "federation.toml", *declared]) == 0


def test_a_word_in_a_column_of_numbers_names_file_row_column_and_value(
    refused: Any,
) -> None:
    frame = rows().astype({"dose": object})
    frame.loc[7, "dose"] = "high"
    errors = refused(frame=frame)
    for word in ("rows.csv:", "Row 7", "'dose'", "'high'"):
        assert word in errors


def test_label_out_of_range_in_test_rows(tmp_path: Path, refused: Any) -> None:
    rows().assign(outcome=7).to_csv(tmp_path / "test.csv", index=False)
    data = (
        'data={path="rows.csv", label="outcome", client="hospital", '
        'sensitivity="public", test_path="test.csv"}'
    )
    errors = refused(data)
    assert "'outcome'" in errors
    assert "7" in errors


def test_cohort_larger_than_the_population(refused: Any) -> None:
    errors = refused('rounds.sampler="uniform"', "rounds.cohort_size=5")
    assert "federation.toml: cohort_size is 5" in errors
    assert "4 clients" in errors


def test_delta_not_below_one_over_the_number_of_units(refused: Any) -> None:
    errors = refused(*ROW_PRIVACY, "privacy.delta=0.05")
    assert "federation.toml: delta is 0.05" in errors
    assert "must be below" in errors


def test_unit_is_missing(refused: Any) -> None:
    errors = refused("privacy.delta=1e-5")
    assert "privacy.unit: missing key" in errors


def test_client_level_privacy_of_few_clients_needs_consent(refused: Any) -> None:
    errors = refused(CLIENT_PRIVACY)
    assert "accept_weak_privacy = true" in errors
    assert "epsilon 8: noise multiplier" in errors


def test_amplification_by_a_sampler_that_does_not_earn_it(refused: Any) -> None:
    errors = refused(CLIENT_PRIVACY, 'privacy.sampling="poisson"')
    assert "privacy.sampling" in errors
    assert "the sampler that earns it" in errors


def test_batch_normalization_under_example_level_privacy(
    tmp_path: Path, refused: Any
) -> None:
    layers = "keras.layers.BatchNormalization(), keras.layers.Dense(2)"
    errors = refused(*ROW_PRIVACY, keras_layers(tmp_path, layers))
    assert "GroupNormalization" in errors


def test_bounds_inferred_from_private_data(refused: Any) -> None:
    errors = refused(*ROW_PRIVACY, 'data.sensitivity="private"')
    assert "declared" in errors
    assert "dose" in errors
    _follow_the_way_out()


def _follow_the_way_out() -> None:
    """The refusal names a command; then the facts are declared, and the run goes on."""
    own = Path("federation.toml")
    tables = own.read_text().replace('"public"', '"private"')
    client = "[client]\nlearning_rate = 0.1\nbatch_size = 8\nlocal_epochs = 1\n"
    assert client in tables
    private = f"{ROW_PRIVACY[0]}\n{ROW_PRIVACY[1]}\n"
    own.write_text(private + tables.replace(client, ""))
    describe = ["data", "describe", "federation.toml", "--schema", "schema.json"]
    assert run_command(describe) == 0
    schema = Path("schema.json")
    schema.write_text(schema.read_text().replace('"inferred"', '"declared"'))
    setting = ["-s", 'data.schema_path="schema.json"']
    assert run_command(["simulate", "federation.toml", *setting]) == 0


def test_absent_column_and_absent_file(refused: Any) -> None:
    assert "'diagnosis'" in refused('data.label="diagnosis"')
    assert "elsewhere.csv" in refused('data.path="elsewhere.csv"')


def test_unknown_named_set(refused: Any) -> None:
    errors = refused('data={name="digit"}')
    assert "'digit'" in errors
    assert "'digits'" in errors


def test_noise_that_cannot_be_distributed(refused: Any) -> None:
    errors = refused(CLIENT_PRIVACY, 'privacy.trust="distributed"')
    assert "rounds.secure_aggregation" in errors


def entities_at_two_clients() -> pd.DataFrame:
    return rows().assign(patient=np.arange(40) // 2)


ENTITY_PRIVACY = [
    *ROW_PRIVACY,
    'data={path="rows.csv", label="outcome", client="hospital", entity="patient", '
    'sensitivity="public", test_fraction=0.2}',
    'privacy.unit="entity"',
    "privacy.max_rows_per_entity=2",
]


def test_entities_at_more_clients_than_declared(refused: Any) -> None:
    errors = refused(*ENTITY_PRIVACY, frame=entities_at_two_clients())
    assert "privacy.max_clients_per_entity is 1" in errors
    assert "at 2 clients" in errors


def test_share_of_private_rows_cannot_be_declared_public(refused: Any) -> None:
    errors = refused('data.sensitivity="private"', 'data.test_sensitivity="public"')
    assert "data.test_path" in errors


def test_file_that_is_no_saved_model(tmp_path: Path, refused: Any) -> None:
    (tmp_path / "saved.keras").write_text("nothing of Keras")
    errors = refused('model={path="saved.keras"}')
    assert "saved.keras' is not a Keras model" in errors


def test_number_of_labels_taken_from_private_rows(tmp_path: Path, refused: Any) -> None:
    features = np.zeros([6, 2], np.float32)
    one = Examples(features=features, labels=np.arange(6, dtype=np.int32) % 3)
    pack(from_clients({"a": one, "b": one}), tmp_path / "packed")
    data = 'data={path="packed", test_fraction=0.2}'
    assert "num_classes" in refused(*ROW_PRIVACY, data)
