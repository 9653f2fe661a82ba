from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from fedtrain.export import serving_files

server_config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    serving_files.write_serving_files(tmp_path, name="Credit_Model.2", version=3)
    return tmp_path


def test_models_are_what_serving_reads(tmp_path: Path) -> None:
    models = [
        serving_files.Served("digits", [4, 7], {"stable": 4, "canary": 7}),
        serving_files.Served("credit", [1], {"stable": 1, "canary": 1}),
    ]
    path = tmp_path / serving_files.MODELS
    path.write_text(serving_files.models_config(models))
    parsed = text_format.Parse(path.read_text(), server_config.ModelServerConfig())
    first = parsed.model_config_list.config[0]
    assert (first.name, first.base_path) == ("digits", "/models/digits")
    assert first.model_platform == "tensorflow"
    assert list(first.model_version_policy.specific.versions) == [4, 7]
    assert dict(first.version_labels) == {"stable": 4, "canary": 7}
    assert serving_files.read_models(path) == models


def test_release_has_one_version_with_both_labels(folder: Path) -> None:
    (model,) = serving_files.read_models(folder / serving_files.MODELS)
    assert model == ("Credit_Model.2", [3], {"stable": 3, "canary": 3})


def test_batching_and_monitoring_fit_the_published_messages(folder: Path) -> None:
    batching = _parsed(folder / serving_files.BATCHING, "BatchingParameters")
    assert batching.max_batch_size.value == max(batching.allowed_batch_sizes)
    monitoring = _parsed(folder / serving_files.MONITORING, "MonitoringConfig")
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path.startswith("/")


def test_manifests_fit_kubernetes_schemas(folder: Path) -> None:
    text = (folder / serving_files.KUBERNETES).read_text("utf-8")
    manifests = list(yaml.safe_load_all(text))
    assert [m["kind"] for m in manifests] == [
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
    ]
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    assert {m["metadata"]["name"] for m in manifests} == {"credit-model-2-serving"}


def test_compose_and_kubernetes_start_the_server_alike(folder: Path) -> None:
    compose = yaml.safe_load((folder / serving_files.COMPOSE).read_text("utf-8"))
    service = compose["services"]["serving"]
    deployment = next(
        yaml.safe_load_all((folder / serving_files.KUBERNETES).read_text("utf-8"))
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert service["image"] == container["image"]
    assert service["command"] == container["args"]
    files = [arg.split("=")[1] for arg in service["command"] if "_file=" in arg]
    for file in files:
        assert (folder / Path(file).relative_to(serving_files.MOUNT)).is_file()


def _parsed(path: Path, message: str) -> object:
    """The file as ``message``: TensorFlow Serving's, whose protos no package has."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_messages())
    kind = pool.FindMessageTypeByName(f"serving.{message}")
    return text_format.Parse(
        path.read_text("utf-8"), message_factory.GetMessageClass(kind)()
    )


def _messages() -> descriptor_pb2.FileDescriptorProto:
    int64 = [("value", "TYPE_INT64", "", False)]
    boxed = dict.fromkeys(
        (
            "max_batch_size",
            "batch_timeout_micros",
            "max_enqueued_batches",
            "num_batch_threads",
        ),
        ("TYPE_MESSAGE", "Int64Value"),
    )
    batching = [(name, *kind, False) for name, kind in boxed.items()]
    batching.append(("allowed_batch_sizes", "TYPE_INT64", "", True))
    prometheus = [
        ("enable", "TYPE_BOOL", "", False),
        ("path", "TYPE_STRING", "", False),
    ]
    file = descriptor_pb2.FileDescriptorProto(
        name="serving.proto", package="serving", syntax="proto3"
    )
    for name, fields in {
        "Int64Value": int64,
        "BatchingParameters": batching,
        "PrometheusConfig": prometheus,
        "MonitoringConfig": [
            ("prometheus_config", "TYPE_MESSAGE", "PrometheusConfig", False)
        ],
    }.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, type_name, repeated) in enumerate(fields, 1):
            message.field.add(
                name=field,
                number=number,
                type=getattr(descriptor_pb2.FieldDescriptorProto, kind),
                type_name=f".serving.{type_name}" if type_name else None,
                label=3 if repeated else 1,
            )
    return file
