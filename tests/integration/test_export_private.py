"""Exports that ask private rows: charged before they are read, and said so."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedtrain.cli.main import run as run_command
from fedtrain.core.errors import (
    BudgetExhaustedError,
    ConfigError,
    PrivacyError,
    RefusedExportError,
)
from fedtrain.export import paid_scores
from fedtrain.export.export_run import export_run
from fedtrain.export.record import read_record
from fedtrain.export.release import verify_release
from fedtrain.export.verify import Verifier
from fedtrain.project import load
from fedtrain.project.load import load_run

EPSILON, NUM_ROWS = 2.0, 2400
EDGE = ["float32", "int8"]
PAYING = {"max_accuracy_drop": 10.0, "edge_variants": EDGE}


class Run(NamedTuple):
    folder: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    root = tmp_path_factory.mktemp("private")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CONFIG_HOME", str(root / "config"))
        patch.setenv("FEDTRAIN_STATE_DIR", str(root / "state"))
        write_project(root)
        assert run_command(["simulate", "federation.toml"]) == 0
        loaded = load_run("latest")
        folder = loaded.folder.path.resolve()
        yield Run(folder, json.loads((folder / "privacy_report.json").read_text()))


def ledger(run: Run) -> list[Any]:
    lines = Path(run.report["ledger_path"]).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_plan_kept_back_what_the_export_will_spend(run: Run) -> None:
    assert run.report["target_epsilon"] == 8.0
    assert run.report["planned_epsilon"] == pytest.approx(8.0, rel=1e-2)
    assert run.report["epsilon"] < 7.5


def test_what_cannot_be_asked_is_refused_before_anything_is_charged(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ledger(run)
    with monkeypatch.context() as patch:
        patch.setattr(paid_scores, "_counting", refused)
        with pytest.raises(ConfigError, match="no bound"):
            export_run(run.folder, to=["edge"], **PAYING)
    assert ledger(run) == before


def refused(*given: Any) -> Any:
    raise ConfigError("no bound")


def test_nothing_is_paid_where_no_variant_is_left_to_judge(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ledger(run)
    monkeypatch.setattr(Verifier, "_refusal", lambda *a: "its outputs are wrong")
    with pytest.raises(RefusedExportError, match="its outputs are wrong"):
        export_run(run.folder, to=["edge"], edge_variants=["float32"])
    assert ledger(run) == before


def test_without_an_epsilon_private_rows_are_not_looked_at(
    run: Run, tmp_path: Path
) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    settings = (folder / "federation.toml").read_text()
    kept = [line for line in settings.splitlines() if "evaluation_epsilon" not in line]
    (folder / "federation.toml").write_text("\n".join(kept))
    with pytest.raises(PrivacyError, match="releases that nothing paid for"):
        export_run(folder, to=["server"])


def test_private_rows_are_not_public_because_an_option_says_so(run: Run) -> None:
    with pytest.raises(PrivacyError, match="declares private"):
        export_run(run.folder, to=["edge"], public_rows="rows.csv")


def test_scores_and_ranges_of_private_rows_are_charged_before_rows_are_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = len(ledger(run)), {}
    asked = paid_scores.run_fresh

    def notes(candidate: Any, inputs: Any) -> Any:
        seen[candidate.name] = [entry["note"] for entry in ledger(run)[before:]]
        return asked(candidate, inputs)

    monkeypatch.setattr(paid_scores, "run_fresh", notes)
    released = export_run(run.folder, to=["edge"], **PAYING)
    notes_now = [entry["note"] for entry in ledger(run)[before:]]
    assert notes_now == [
        "release: ranges of activations",
        "release: scores of variants",
    ]
    assert seen["int8"] == notes_now
    record = read_record(released.folder)
    check_record(record, run)
    assert verify_release(released.folder).exit_code == 10


def check_record(record: Any, run: Run) -> None:
    assert record.lineage.data_sha256 is None  # it would confirm a guess at the rows
    ranges, scores = record.charges
    for charge in (ranges, scores):
        assert 0.99 * EPSILON < charge.epsilon <= EPSILON
        assert (charge.unit, charge.trust) == ("example", "local")
        assert charge.delta == run.report["delta"]
        assert charge.neighboring_relation == "add_or_remove_one"
    assert scores.sensitivity == pytest.approx(3**0.5)  # the model, and two variants
    three_clients = scores.noise_multiplier * scores.sensitivity * 3**0.5
    assert scores.noise_stddev == pytest.approx(three_clients)
    assert run.report["epsilon"] < scores.epsilon_in_all <= 8.0
    assert f"{scores.epsilon_in_all:.3g}" in record.privacy_spent
    assert "unit: example" in record.privacy_spent
    assert "PLD (dp-accounting" in scores.accountant_in_all
    # Exact figures of private rows appear nowhere.
    assert len(record.variants) == 2
    for variant in record.variants:
        assert variant.worst_slice is None
        assert set(variant.drop_noise_points) == {"accuracy"}
    (int8,) = (v for v in record.variants if v.name == "int8")
    assert int8.calibration == "noised ranges of private rows, paid for"
    # Six standard deviations of the noise: false alarm below 1e-8.
    assert abs(record.num_evaluation_rows - NUM_ROWS / 2) < 9.0 * scores.noise_stddev
    noise = int8.drop_noise_points["accuracy"]
    assert abs(int8.drop_points["accuracy"]) < 2.0 + 6.0 * noise


def test_beyond_the_budget_no_row_is_read_and_nothing_is_charged(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ledger(run)
    monkeypatch.setattr(load, "build", lambda *a, **k: pytest.fail("rows were read"))
    with pytest.raises(BudgetExhaustedError) as refused:
        export_run(run.folder, to=["server"], evaluation_epsilon=8.0)
    assert refused.value.exit_code == 3
    assert ledger(run) == before


def test_raw_calibration_needs_its_flag_and_voids_the_statement(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    public = tmp_path / "public.csv"
    public.write_text(rows(200, seed=5))
    settings = {
        "to": ["edge"],
        "into": tmp_path / "releases",
        "public_rows": str(public),
        "calibration": "raw_private",
        **PAYING,
    }
    with pytest.raises(ValueError, match="--accept-raw-calibration"):
        export_run(run.folder, **settings)
    before = len(ledger(run))
    released = export_run(run.folder, accept_raw_calibration=True, **settings)
    assert len(ledger(run)) == before
    record = read_record(released.folder)
    assert record.release_status == "raw_calibration"
    assert record.privacy_statement.startswith("VOID")
    assert record.privacy_spent.startswith("VOID")
    (file,) = released.folder.glob("edge/*-int8.tflite")
    with zipfile.ZipFile(file) as archive:
        assert "raw_calibration" in archive.read("metadata.json").decode()
    assert run_command(["release", "verify", str(released.folder)]) == 17
    assert "raw_calibration" in "".join(capsys.readouterr())


def test_slices_by_a_column_of_public_rows_show_the_worst(
    run: Run, tmp_path: Path, capsys: Any
) -> None:
    public = tmp_path / "public.csv"
    public.write_text(rows(400, seed=6))
    settings: dict[str, Any] = {"to": ["edge"], "into": tmp_path / "releases"}
    settings |= {"public_rows": str(public), "edge_variants": ["float16"]}
    released = export_run(run.folder, slice_columns=["region", "income"], **settings)
    (variant,) = read_record(released.folder).variants
    assert variant.worst_slice is not None
    with pytest.raises(ValueError, match="it has income, region"):
        export_run(run.folder, slice_columns=["sex"], **settings)


def rows(num: int, *, seed: int) -> str:
    random = np.random.default_rng(seed)
    lines = ["income,region,outcome"]
    for _ in range(num):
        income, region = random.normal(), random.choice(["north", "south"])
        lines.append(f"{income:.3f},{region},{'yes' if income > 0 else 'no'}")
    return "\n".join(lines) + "\n"


def write_project(folder: Path) -> None:
    (folder / "rows.csv").write_text(rows(NUM_ROWS, seed=0))
    declared = {"source": "declared"}
    region = {"values": ["north", "south"], **declared}
    schema = {
        "features": [
            {
                "name": "income",
                "kind": "number",
                "encoding": "standardise",
                "moments": {"mean": 0.0, "stddev": 1.0, **declared},
            },
            {
                "name": "region",
                "kind": "category",
                "encoding": "one_hot",
                "categories": region,
            },
        ],
        "label": {
            "name": "outcome",
            "kind": "category",
            "encoding": "index",
            "categories": {"values": ["no", "yes"], **declared},
        },
    }
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "federation.toml").write_text(
        f"""
name = "rows"
seed = 1
[data]
path = "rows.csv"
label = "outcome"
schema_path = "schema.json"
partition = "iid"
num_clients = 3
test_fraction = 0.5
sensitivity = "private"
[model]
name = "dense_classifier"
hidden = [8]
[rounds]
num_rounds = 4
[client]
learning_rate = 0.5
local_steps = 4
sampling_rate = 0.2
expected_batch_size = 80
[privacy]
unit = "example"
trust = "local"
neighboring_relation = "add_or_remove_one"
delta = 1e-4
sampling = "poisson"
clipping_norm = 1.0
target_epsilon = 8.0
[export]
evaluation_epsilon = {EPSILON}
calibration = "private_query"
calibration_epsilon = {EPSILON}
[tracking]
tensorboard = false
html_report = false
"""
    )
