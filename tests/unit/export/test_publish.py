import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedtrain.core.errors import ConfigError, TamperedReleaseError
from fedtrain.export import publish, record, signing
from fedtrain.export.publish import check_published, label_version, publish_release
from fedtrain.export.release import verify_release
from fedtrain.export.serving_files import COMPOSE, MODELS, Served, read_models

pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return _release(tmp_path / "release", "digits")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "serving"


def test_first_version_is_stable_and_canary_later_ones_wait_for_a_label(
    release: Path, base: Path
) -> None:
    first = publish_release(release, base)
    assert first.folder == base / "digits" / "1"
    assert (first.folder / "saved_model.pb").read_text() == "float32 of digits"
    assert first.served.labels == {"stable": 1, "canary": 1}
    second = publish_release(release, base)
    assert second.folder.name == "2"
    assert _only(base) == Served("digits", [1, 2], {"stable": 1, "canary": 1})


def test_labels_alone_promote_and_roll_back(release: Path, base: Path) -> None:
    for _ in range(5):
        publish_release(release, base)
    assert label_version(base, "canary", 5).versions == [1, 3, 4, 5]
    promoted = label_version(base, "stable", 5)
    # What was stable until now stays loaded: the step back needs nothing else.
    assert promoted == Served("digits", [1, 3, 4, 5], {"stable": 5, "canary": 5})
    assert label_version(base, "stable", 1).labels == {"stable": 1, "canary": 5}
    assert sorted(p.name for p in (base / "digits").glob("[0-9]*")) == list("12345")
    with pytest.raises(ConfigError, match=r"no version 2 .* loaded, only 1, 3, 4, 5"):
        label_version(base, "stable", 2)


def test_models_share_one_configuration(base: Path, tmp_path: Path) -> None:
    for name in ("digits", "credit"):
        publish_release(_release(tmp_path / name, name), base)
    edited = "services: {}\n"
    (base / COMPOSE).write_text(edited)
    publish_release(tmp_path / "credit", base)
    found = {model.name: list(model.versions) for model in read_models(base / MODELS)}
    assert found == {"credit": [1, 2], "digits": [1]}
    assert (base / COMPOSE).read_text() == edited
    with pytest.raises(ConfigError, match="models: credit, digits"):
        label_version(base, "stable", 1)
    label_version(base, "stable", 2, name="credit")


def test_base_starts_a_server(release: Path, base: Path) -> None:
    publish_release(release, base)
    service = yaml.safe_load((base / COMPOSE).read_text())["services"]["serving"]
    (volume,) = service["volumes"]
    assert volume["source"] == "."
    files = [arg.split("=")[1] for arg in service["command"] if "_file=" in arg]
    assert len(files) == 3
    for file in files:
        assert (base / Path(file).relative_to(volume["target"])).is_file()
    assert "--model_config_file_poll_wait_seconds=10" in service["command"]


def test_tampered_release_is_not_published(release: Path, base: Path) -> None:
    (release / "server/digits/7/saved_model.pb").write_text("another model")
    with pytest.raises(TamperedReleaseError, match=r"saved_model\.pb was changed"):
        publish_release(release, base)
    assert not base.exists()


def test_signed_record_stays_beside_the_model(release: Path, base: Path) -> None:
    folder = publish_release(release, base).folder
    assert check_published(folder).version == 7
    (folder / "saved_model.pb").write_text("another model")
    with pytest.raises(TamperedReleaseError, match=r"saved_model\.pb is not what was"):
        label_version(base, "stable", 1)
    values = json.loads((folder / "assets.extra" / "release.json").read_text())
    values["num_evaluation_rows"] = 10**6
    (folder / "assets.extra" / "release.json").write_text(json.dumps(values))
    with pytest.raises(TamperedReleaseError, match="changed after it was signed"):
        check_published(folder)


def test_label_moves_only_to_its_own_model_by_the_key_that_was_named(
    release: Path, base: Path, tmp_path: Path
) -> None:
    own = publish_release(release, base).folder
    other = publish_release(_release(tmp_path / "credit", "credit"), base).folder
    with pytest.raises(TamperedReleaseError, match=f"not by {'0' * 16}"):
        label_version(base, "stable", 1, name="digits", signer="0" * 16)
    shutil.rmtree(own)
    shutil.copytree(other, own)
    with pytest.raises(TamperedReleaseError, match="release of credit, not of digits"):
        label_version(base, "stable", 1, name="digits")


def test_name_that_leads_out_of_the_base_is_refused(release: Path, base: Path) -> None:
    values = json.loads((release / "release.json").read_text())
    values["name"] = "../elsewhere"
    (release / "release.json").write_text(json.dumps(values))
    with pytest.raises(TamperedReleaseError, match="name: String should match pattern"):
        publish_release(release, base)


@pytest.mark.parametrize("target", [".", "nowhere"])
def test_link_that_was_added_is_found(release: Path, target: str) -> None:
    (release / "server" / "more").symlink_to(target)
    with pytest.raises(TamperedReleaseError, match="more is not part of the release"):
        verify_release(release)


def test_nothing_half_written_is_seen(
    release: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_release(release, base)
    before = (base / MODELS).read_text()

    def full(source: Any, target: Any, **kwargs: Any) -> None:
        shutil.copy(Path(source) / "saved_model.pb", target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish.shutil, "copytree", full)
    with pytest.raises(ConfigError, match="No space left"):
        publish_release(release, base)
    left = {p.name for p in (base / "digits").iterdir()}
    assert left - {".lock", ".last_version"} == {"1"}
    assert (base / MODELS).read_text() == before


def test_copy_that_differs_is_not_published(
    release: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(source: Any, target: Any, **kwargs: Any) -> None:
        (target / "assets.extra").mkdir()
        (target / "saved_model.pb").write_text("flipped bits")

    monkeypatch.setattr(publish.shutil, "copytree", bad)
    with pytest.raises(TamperedReleaseError, match="while it was being copied"):
        publish_release(release, base)
    assert not (base / "digits" / "1").exists()


def test_any_server_variant_can_be_a_version(release: Path, base: Path) -> None:
    folder = publish_release(release, base, variant="bfloat16").folder
    assert (folder / "saved_model.pb").read_text() == "bfloat16 of digits"
    check_published(folder)
    with pytest.raises(ConfigError, match="it has float32, bfloat16"):
        publish_release(release, base, variant="float16")


def test_configuration_of_another_kind_is_named(release: Path, base: Path) -> None:
    base.mkdir()
    (base / MODELS).write_text("model_config_list { nonsense: 1 }")
    with pytest.raises(ConfigError, match=r"models\.config is not what TensorFlow"):
        publish_release(release, base)


def _only(base: Path) -> Served:
    (model,) = read_models(base / MODELS)
    return model


def _release(folder: Path, name: str) -> Path:
    """A signed release with two server variants, whose models are a line of text."""
    variants = []
    for variant, top in (("float32", "server"), ("bfloat16", "server-bfloat16")):
        saved = folder / top / name / "7"
        (saved / "assets.extra").mkdir(parents=True)
        (saved / "saved_model.pb").write_text(f"{variant} of {name}")
        (saved / "assets.extra" / "warmup").write_text("requests")
        variants.append(_variant(variant, str(saved.relative_to(folder))))
    (folder / "release.html").write_text("page")
    key = signing.signing_key()
    unsigned = record.Release(
        name=name,
        version=7,
        created="2026-01-01T00:00:00+00:00",
        release_status="simulation",
        privacy_statement="none",
        privacy_spent="Nothing",
        evaluation="public rows",
        num_evaluation_rows=10,
        source_scores={"accuracy": 0.9},
        bounds=record.Bounds(
            max_accuracy_drop=0.5, max_slice_drop=2.0, min_slice_rows=200
        ),
        targets=["server"],
        variants=variants,
        lineage=record.Lineage(
            run_id="run",
            project_file_sha256="",
            weights_sha256="",
            data_sha256=None,
            schema_sha256=None,
            privacy_report_sha256=None,
            ledger_hash=None,
            trained_with={},
            exported_with={},
        ),
        files=record.file_hashes(folder),
        public_key=signing.public_text(key),
    )
    signature = signing.signature(key, unsigned.signed_bytes())
    record.write_record(unsigned.model_copy(update={"signature": signature}), folder)
    return folder


def _variant(name: str, path: str) -> record.Variant:
    return record.Variant(
        target="server",
        name=name,
        runtime="saved_model",
        path=path,
        recommended=name == "float32",
        refusal=None,
        calibration=None,
        size_bytes=1,
        gzip_bytes=1,
        scores={"accuracy": 0.9},
        drop_points={"accuracy": 0.0},
        worst_slice=None,
        max_output_difference=0.0,
        agreement=1.0,
        latency_1=record.Latency(p50_s=0.001, p99_s=0.002),
        latency_32=None,
        peak_memory_bytes=None,
    )
