"""The operator's folder: what of a federation lies where."""

import json
from pathlib import Path
from typing import NamedTuple

from aggregator.authority import Authority, Terms
from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically
from fedtrain.project.agreed_session import partners_below
from fedtrain.project.config import ProjectConfig, ServiceSection
from fedtrain.project.read import read_config
from fedtrain.project.secure_session import TOP
from fedtrain.wire.plan import Plan

DEFAULT = Path("aggregator-home")


class Federation(NamedTuple):
    """What ``init`` settled, by file.

    Attributes:
      path: The operator's folder.
      project: The project file that is served.
      operator: Who runs the aggregator, for people.
      region: Whose aggregator it is; empty for one that is above all.
    """

    path: Path
    project: Path
    operator: str
    region: str = TOP

    @property
    def journal(self) -> Path:
        """Folder of the journal and its lock."""
        return self.path / "journal"

    @property
    def spool(self) -> Path:
        """Folder of contributions that wait for the end of their round."""
        return self.path / "spool"

    @property
    def runs(self) -> Path:
        """Folder of the runs' folders."""
        return self.path / "runs"

    @property
    def page_token(self) -> Path:
        """The private file with the token of the operator's page."""
        return self.path / "page.token"

    @property
    def seen(self) -> Path:
        """When partners were last seen."""
        return self.path / "seen.json"

    @property
    def sequences(self) -> Path:
        """The last sequence of each partner's requests."""
        return self.path / "sequences.log"

    def config(self) -> ProjectConfig:
        """The project file, read again.

        Raises:
          ConfigError: If it is gone, or its keys are not what they must be.
        """
        if not self.project.is_file():
            raise ConfigError(
                f"{self.project}, the project file that {self.path} was made with, is "
                "not there. Put it back: partners have approved what it says."
            )
        return read_config(self.project)

    def service(self) -> ServiceSection:
        """The file's ``[service]``."""
        service = self.config().service
        if service is None:
            raise ConfigError(f"{self.project} has no [service] section any more.")
        return service

    def partners(self) -> tuple[str, ...]:
        """Who may be admitted: above regions their aggregators, else partners."""
        return partners_below(self.plan(), self.region)

    def authority(self) -> Authority:
        """The certificate authority."""
        return Authority(self.path / "authority")

    def plan(self) -> Plan:
        """The plan that partners are asked to approve."""
        return Plan.from_bytes((self.path / "plan.json").read_bytes())

    def write_plan(self, plan: Plan) -> None:
        """Makes ``plan`` the one that partners are asked to approve."""
        write_atomically(self.path / "plan.json", plan.canonical())

    def terms(self) -> Terms:
        """What an invitation says besides the partner's name."""
        service = self.service()
        address = service.public_address or service.address
        return Terms(self.plan(), address, service.hosts[0])


def found(federation: Federation) -> None:
    """Writes down what ``federation`` is; its folder is there already."""
    is_top = federation.region == TOP  # a region's file moves with its folder
    project = federation.project.resolve() if is_top else federation.project.name
    content = {
        "project": str(project),
        "operator": federation.operator,
        "region": federation.region,
    }
    path = federation.path / "federation.json"
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def federation_in(path: Path) -> Federation:
    """The federation whose operator's folder is ``path``.

    Raises:
      ConfigError: If there is none, or the file that says so is damaged.
    """
    file = path / "federation.json"
    if not file.is_file():
        raise ConfigError(
            f"{path} holds no federation. Run `fedtrain-aggregator init "
            "federation.toml` first, or name its folder with --home."
        )
    project, operator, region = _texts(file, "project", "operator", region=TOP)
    return Federation(path, path / project, operator, region)


def current_run(federation: Federation) -> str | None:
    """The id of the run that was begun; None before the first."""
    path = federation.path / "run.json"
    if not path.is_file():
        return None
    (run_id,) = _texts(path, "run_id")
    return run_id


def note_run(federation: Federation, run_id: str) -> None:
    """Writes down that the run ``run_id`` is the one that goes on."""
    write_atomically(federation.path / "run.json", json.dumps({"run_id": run_id}))


def _texts(path: Path, *names: str, **by_default: str) -> list[str]:
    try:
        content = by_default | json.loads(path.read_text("utf-8"))
        return [str(content[name]) for name in (*names, *by_default)]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{path} is not as fedtrain wrote it; put it back from a backup."
        ) from None
