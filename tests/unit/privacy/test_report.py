import json
import math

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.data.cohorts import full_participation, poisson_sampler
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy import events
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.ledger import Charge, Ledger
from fedtrain.privacy.noise_source import NOISE_OF_PARTNERS, SEEDED
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.report import (
    PUBLIC_EXCLUSION,
    DataScope,
    checked_report,
    json_schema,
    privacy_report,
    statement,
    to_json,
)
from fedtrain.privacy.run_privacy import RunPrivacy

SCOPE = DataScope(
    training="digits, all clients",
    evaluation="public test rows",
    normaliser="declared bounds",
    tuning="none",
)
COMMON = {
    "neighboring_relation": "add_or_remove_one",
    "delta": 1e-5,
    "sampling": "poisson",
    "num_rounds": 3,
    "clipping_norm": 1.0,
    "noise_multiplier": 1.0,
    "expected_count": 10.0,
    "sampling_rate": 0.2,
}


def local_run(tmp_path, *, is_private=False, noise=SEEDED):
    work = dp_sgd(
        dense_classifier(3, 2),
        sgd(1.0),
        clipping_norm=1.0,
        noise_multiplier=1.0,
        sampling_rate=0.2,
        local_steps=1,
        expected_batch_size=10.0,
        noise=noise,
    )
    plan = PrivacyPlan(
        **COMMON, unit="example", trust="local", num_units=1500, num_clients=20
    )
    return RunPrivacy(
        plan=plan,
        mechanisms=work.mechanisms,
        sampler=full_participation(),
        ledger=Ledger(tmp_path / "ledger.jsonl"),
        run_id="run-1",
        is_private=is_private,
    )


def central_run(tmp_path):
    stage = gaussian_mechanism(clipping_norm=1.0, noise_multiplier=1.0)
    plan = PrivacyPlan(
        **COMMON | {"sampling_rate": 1.0},
        unit="client",
        trust="central",
        num_units=5000,
        num_clients=5000,
    )
    return RunPrivacy(
        plan=plan,
        mechanisms=stage.mechanisms,
        sampler=poisson_sampler(sampling_rate=0.2),
        ledger=Ledger(tmp_path / "ledger.jsonl"),
        run_id="run-1",
    )


@pytest.fixture
def report(tmp_path):
    privacy = local_run(tmp_path)
    for number in range(3):
        privacy.before_round(number, ["ada", "bob"][: number + 1], f"h{number}")
    weights = tmp_path / "weights.npz"
    weights.write_bytes(b"weights")
    return privacy_report(privacy, rounds_done=3, data=SCOPE, exported=[weights])


def test_statement_says_all_that_an_epsilon_needs(report):
    for needed in (
        "Simulated",
        f"epsilon = {report.epsilon:.3g}",
        "delta = 1e-05",
        "one row",
        "add_or_remove_one",
        "trust: local",
        "PLD (dp-accounting",
        "amplification by sampling: claimed",
    ):
        assert needed in report.statement


def test_figures_agree_with_the_plan_and_the_ledger(report, tmp_path):
    assert report.epsilon == pytest.approx(report.planned_epsilon)
    assert report.epsilon < report.rdp_epsilon
    assert report.epsilon_by_client["ada"] == pytest.approx(report.epsilon, rel=1e-3)
    assert report.epsilon_by_client["bob"] < report.epsilon
    assert max(report.epsilon_by_client.values()) <= report.epsilon
    assert report.ledger_length == 3
    assert report.ledger_hash == Ledger(tmp_path / "ledger.jsonl").head()["hash"]
    curve = [epsilon for _, epsilon in report.epsilon_curve]
    assert curve == sorted(curve)
    assert len(report.file_hashes["weights.npz"]) == 64


def test_private_data_is_never_called_a_release(tmp_path):
    privacy = local_run(tmp_path, is_private=True)
    privacy.before_round(0, ["ada"], "h0")
    report = privacy_report(privacy, rounds_done=1, data=SCOPE)
    assert report.status == "NOT A RELEASE"
    assert report.statement.startswith("NOT A RELEASE")
    assert "seeded" in report.noise_source
    assert PUBLIC_EXCLUSION not in report.known_exclusions


def test_noise_from_secret_keys_makes_a_release_and_costs_the_same(tmp_path):
    privacy = local_run(tmp_path, is_private=True, noise=NOISE_OF_PARTNERS)
    spent = privacy.before_round(0, ["ada"], "h0")
    report = privacy_report(privacy, rounds_done=1, data=SCOPE)
    assert (report.status, report.badge) == ("release", "Release")
    assert report.statement.startswith("Release")
    assert "cryptographic" in report.noise_source
    assert not any("simulation" in exclusion for exclusion in report.known_exclusions)
    assert report.mechanisms[0]["details"]["noise_source"] == "cryptographic"
    assert report.epsilon == pytest.approx(spent, rel=1e-2)
    assert checked_report(json.loads(to_json(report))) == report


def test_exact_losses_beside_a_public_run_are_named(report):
    assert PUBLIC_EXCLUSION in report.known_exclusions


def test_no_amplification_is_said_to_be_none(tmp_path):
    privacy = central_run(tmp_path)
    privacy.before_round(0, ["ada"], "h0")
    report = privacy_report(privacy, rounds_done=1, data=SCOPE)
    assert not report.amplification_claimed
    assert "amplification by sampling: not claimed" in report.statement
    assert report.zcdp_rho == pytest.approx(0.5)


def test_report_survives_json_also_when_nothing_is_private(report, tmp_path):
    assert checked_report(json.loads(to_json(report))) == report
    privacy = local_run(tmp_path)
    exact = Charge(
        run="other",
        round_number=0,
        attempt=0,
        input_hash="",
        unit="example",
        counts={events.NonPrivate(): 1},
        clients=None,
    )
    privacy.ledger.charge(exact)
    broken = privacy_report(privacy, rounds_done=3, data=SCOPE)
    assert broken.epsilon == math.inf
    text = to_json(broken)
    json.loads(text, parse_constant=pytest.fail)
    assert checked_report(json.loads(text)) == broken


@pytest.mark.parametrize("field", ["delta", "neighboring_relation", "statement"])
def test_a_report_without_a_field_is_refused(report, field):
    values = json.loads(to_json(report))
    del values[field]
    with pytest.raises(ConfigError, match=f"{field}: Field required"):
        statement(values)


def test_unknown_fields_are_refused(report):
    values = json.loads(to_json(report)) | {"eps": 1.0}
    with pytest.raises(ConfigError, match="eps"):
        checked_report(values)


def test_schema_lists_every_field(report):
    assert set(json_schema()["required"]) >= {"epsilon", "delta", "unit", "trust"}
