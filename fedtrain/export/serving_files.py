"""What TensorFlow Serving reads besides the model, and manifests that start it.

Formats: ``ModelServerConfig``, ``BatchingParameters`` and ``MonitoringConfig`` in text
form, https://www.tensorflow.org/tfx/serving/serving_config.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from google.protobuf import text_format

from fedtrain.core.errors import ConfigError
from fedtrain.export.needs import needed

MODELS, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"
COMPOSE, KUBERNETES = "compose.yaml", "kubernetes.yaml"
MOUNT = "/models"
IMAGE = "tensorflow/serving:2.19.1"
LABELS = ("stable", "canary")
_REASON = "Configuring TensorFlow Serving"


class Served(NamedTuple):
    """One model of a server.

    Attributes:
      name: Its folder below the server's.
      versions: Those that the server loads.
      labels: Version by label; a caller may ask for a label instead of a number.
    """

    name: str
    versions: Sequence[int]
    labels: Mapping[str, int]


def write_serving_files(folder: Path, *, name: str, version: int) -> None:
    """Writes configuration and manifests for ``folder/NAME/VERSION``."""
    only = Served(name, [version], dict.fromkeys(LABELS, version))
    texts = {MODELS: models_config([only]), **surroundings(name)}
    for file, text in texts.items():
        (folder / file).write_text(text, "utf-8")


def surroundings(name: str) -> dict[str, str]:
    """By file name: all that does not depend on versions; ``name`` is a model's."""
    resource = resource_name(name)
    return {
        BATCHING: _rendered("batching.config.jinja"),
        MONITORING: _rendered("monitoring.config.jinja"),
        COMPOSE: _rendered("compose.yaml.jinja", image=IMAGE, mount=MOUNT),
        KUBERNETES: _rendered(
            "kubernetes.yaml.jinja",
            image=IMAGE,
            mount=MOUNT,
            name=name,
            resource=resource,
        ),
    }


def models_config(models: Sequence[Served]) -> str:
    """``models.config`` for a server of ``models``."""
    config = _server_config()
    for model in models:
        entry = config.model_config_list.config.add(
            name=model.name,
            base_path=f"{MOUNT}/{model.name}",
            model_platform="tensorflow",
            version_labels=model.labels,
        )
        entry.model_version_policy.specific.versions.extend(sorted(model.versions))
    return str(text_format.MessageToString(config))


def read_models(path: Path) -> list[Served]:
    """The models of the ``models.config`` at ``path``; none if there is no such file.

    Raises:
      ConfigError: If it is no ``ModelServerConfig``.
    """
    if not path.exists():
        return []
    try:
        config = text_format.Parse(path.read_text("utf-8"), _server_config())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not what TensorFlow Serving reads ({error}). Mend it, or give "
            "another --base."
        ) from error
    return [
        Served(
            entry.name,
            list(entry.model_version_policy.specific.versions),
            dict(entry.version_labels),
        )
        for entry in config.model_config_list.config
    ]


def resource_name(name: str) -> str:
    """``name`` as Kubernetes takes it: lower-case letters, digits and hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-")
    return f"{plain or 'model'}-serving"


def _server_config() -> Any:
    module = "tensorflow_serving.config.model_server_config_pb2"
    return needed(module, reason=_REASON).ModelServerConfig()


def _rendered(template: str, **values: object) -> str:
    environment = jinja2.Environment(  # nosec B701 # 2026-11-22: no page
        loader=jinja2.PackageLoader("fedtrain.export", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # configuration, no page
    )
    return environment.get_template(template).render(**values)
