"""What TensorFlow Serving reads besides the model, and manifests that start it.

Formats: ``ModelServerConfig``, ``BatchingParameters`` and ``MonitoringConfig`` in text
form, https://www.tensorflow.org/tfx/serving/serving_config.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2

MODELS, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"
COMPOSE, KUBERNETES = "compose.yaml", "kubernetes.yaml"
MOUNT = "/models"
IMAGE = "tensorflow/serving:2.19.1"


def write_serving_files(folder: Path, *, name: str, version: int) -> None:
    """Writes configuration and manifests for ``folder/NAME/VERSION``."""
    texts = {
        MODELS: models_config(name, versions=[version]),
        BATCHING: _rendered("batching.config.jinja"),
        MONITORING: _rendered("monitoring.config.jinja"),
        COMPOSE: _rendered("compose.yaml.jinja", image=IMAGE, mount=MOUNT),
        KUBERNETES: _rendered(
            "kubernetes.yaml.jinja",
            image=IMAGE,
            mount=MOUNT,
            name=name,
            resource=resource_name(name),
        ),
    }
    for file, text in texts.items():
        (folder / file).write_text(text, "utf-8")


def models_config(name: str, *, versions: Sequence[int]) -> str:
    """Serves ``versions``: the newest is canary, the one before it stable.

    A single version carries both labels.
    """
    newest = sorted(versions)[-2:]
    return _rendered(
        "models.config.jinja",
        name=name,
        mount=MOUNT,
        versions=newest,
        labels={"stable": newest[0], "canary": newest[-1]},
    )


def resource_name(name: str) -> str:
    """``name`` as Kubernetes takes it: lower-case letters, digits and hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-")
    return f"{plain or 'model'}-serving"


def _rendered(template: str, **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fedtrain.export", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # configuration, no page
    )
    return environment.get_template(template).render(**values)
