import json
import re
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from typer.main import get_command

from aggregator.cli import app
from aggregator.page_metrics import PageMetrics
from aggregator.traffic import Traffic
from fedtrain.wire import messages_pb2 as pb
from tests.unit.aggregator.shown_page import STATES, shown_in

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "aggregator" / "deploy"


@pytest.fixture(scope="module")
def manifests() -> dict:
    text = (DEPLOY / "kubernetes.yaml").read_text("utf-8")
    return {(m["kind"], m["metadata"]["name"]): m for m in yaml.safe_load_all(text)}


def test_manifests_fit_kubernetes_schemas(manifests):
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    assert len(manifests) == 5


def test_aggregator_is_alone_and_without_rights(manifests):
    job = manifests["Job", "fedtrain-aggregator"]["spec"]
    pod = job["template"]["spec"]
    assert (job["parallelism"], job["completions"]) == (1, 1)
    assert pod["securityContext"]["runAsNonRoot"]
    for container in [*pod["initContainers"], *pod["containers"]]:
        limits = container["securityContext"]
        assert limits["readOnlyRootFilesystem"]
        assert limits["capabilities"] == {"drop": ["ALL"]}
        assert not limits["allowPrivilegeEscalation"]


def test_services_find_the_pod_and_its_ports(manifests):
    template = manifests["Job", "fedtrain-aggregator"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for (kind, _), manifest in manifests.items():
        if kind == "Service":
            assert manifest["spec"]["selector"] == template["metadata"]["labels"]
            assert {p["targetPort"] for p in manifest["spec"]["ports"]} <= ports


def test_containers_run_commands_that_exist(manifests):
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    job = manifests["Job", "fedtrain-aggregator"]["spec"]["template"]["spec"]
    lines = [
        compose["services"]["aggregator"]["command"],
        job["containers"][0]["args"],
        json.loads(re.findall(r"^CMD (.*)$", _containerfile(), re.MULTILINE)[0]),
    ]
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    for verb, *options in lines:
        assert verb == "serve"
        assert serve.make_context("serve", list(options)).params["log_format"]


def test_compose_builds_targets_that_exist():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    stages = re.findall(r"^FROM \S+ AS (\w+)$", _containerfile(), re.MULTILINE)
    for service in compose["services"].values():
        assert service["build"]["target"] in stages
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_the_image_takes_what_is_there_and_nothing_else():
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", _containerfile(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert all((ROOT / name).exists() for name in names)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == names


def test_the_image_installs_and_starts_what_the_package_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (extras,) = re.findall(r"pip install .*\[(.*)\]", _containerfile())
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    entries = re.findall(r'^ENTRYPOINT \["(.*)"\]$', _containerfile(), re.MULTILINE)
    assert entries == ["fedtrain-aggregator", "fedtrain-client"]
    assert set(entries) <= set(project["scripts"])


def test_dashboard_asks_for_metrics_that_exist(tmp_path):
    with shown_in(STATES[1], tmp_path) as shown:
        registry = CollectorRegistry()
        traffic = Traffic(shown.rounds, registry)
        traffic.answered("Hello", pb.ACCEPTED)
        traffic.received(1)
        traffic.seen("bank-a", "localhost")
        registry.register(PageMetrics(shown))
        known = generate_latest(registry).decode()
    names = set(re.findall(r"^(fedtrain_\w+)", known, re.MULTILINE))
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"fedtrain_\w+", target["expr"])
    }
    assert len(asked) > 8
    assert asked <= names
    assert "fedtrain_epsilon_spent 3.9" in known
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
    assert len(set(places)) == len(places)


def _containerfile() -> str:
    return (DEPLOY / "Containerfile").read_text("utf-8")
