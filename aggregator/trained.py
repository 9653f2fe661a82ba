"""The training thread of a served run: the same loop as a simulation's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from aggregator.authority import Authority
from aggregator.collector import RunStoppedError
from aggregator.grpc_runtime import GrpcRuntime
from aggregator.home import Federation
from aggregator.own_noise import forget_own_key, own_key
from aggregator.planning import plan_for
from aggregator.rounds import Rounds
from aggregator.saved_checkpoint import newest_intact
from aggregator.secure_terms import SecureTerms, check_all_admitted, secure_terms
from fedtrain.core.errors import ConfigError, StoppedError
from fedtrain.privacy.noise_source import NOISE_OF_PARTNERS, ReleasedNoise
from fedtrain.project.build import Project
from fedtrain.project.config import ProjectConfig
from fedtrain.project.deployed import declared, drawing_from
from fedtrain.project.run import RunInterruptedError, run, start_run
from fedtrain.project.run_folder import RunFolder
from fedtrain.wire.plan import Plan


@dataclass(frozen=True)
class ServedRun:
    """A run that is ready to be served.

    Attributes:
      project: With a declared population.
      folder: Of the run; its name is the run's id.
      plan: That was approved.
      authority: Knows the partners' keys, for secure aggregation.
    """

    project: Project
    folder: RunFolder
    plan: Plan | None = None
    authority: Authority | None = None

    @property
    def run_id(self) -> str:
        """The run's name in journal, ledgers and requests."""
        return self.folder.path.name


def prepared(
    federation: Federation,
    run_id: str | None,
    *,
    checks: Sequence[Callable[[Project], None]] = (),
    draws: bool = True,
) -> ServedRun:
    """The run ``run_id`` of ``federation``, or a new one.

    Args:
      federation: From ``init``.
      run_id: Of a run that has begun.
      checks: Raise, before a new run begins, where its end could only fail.
      draws: Whether it may need the aggregator's noise; without it no round is run.

    Raises:
      ConfigError: If the project file no longer gives the plan that was approved.
      PrivacyError: If the key of the run's noise is lost.
    """
    config = federation.config()
    tracking = config.tracking.model_copy(
        update={"runs_dir": str(federation.runs.resolve()), "checkpoint_every": 1}
    )
    config = config.model_copy(update={"tracking": tracking})
    plan = federation.plan()
    simulated = declared(_with_noise(config, plan), folder=federation.project.parent)
    project = drawing_from(simulated, NOISE_OF_PARTNERS)
    _check_plan(federation, project)
    project = replace(project, config=config)
    for check in checks:
        check(project)
    is_new, authority = run_id is None, federation.authority()
    if is_new:
        check_all_admitted(config, authority)
    folder = start_run(project) if is_new else RunFolder(federation.runs / str(run_id))
    key = own_key(plan, folder, is_new=is_new) if draws else b""
    if key:
        project = replace(drawing_from(simulated, ReleasedNoise(key)), config=config)
    return ServedRun(project, folder, plan, authority)


def trained(
    served: ServedRun,
    rounds: Rounds,
    *,
    console: Console,
    ended: Callable[[], str | None] = lambda: None,
) -> dict[str, Any]:
    """Runs all rounds that are still to do; tells partners how it ended.

    Args:
      served: The run.
      rounds: Where partners take part.
      console: Where progress is shown.
      ended: What the operator says who has ended the run for good; None until then.

    Returns:
      The summary, as a simulation's.

    Raises:
      RunStoppedError: After Ctrl-C or SIGTERM; the run can be resumed.
      StoppedError: If the operator has ended the run: its last weights are written.
      CheckpointError: If every checkpoint is damaged; the run has not finished then.
    """
    config = served.project.config
    service = config.service
    if service is None:
        raise ConfigError("A served run needs [service].")
    runtime = GrpcRuntime(
        rounds,
        run_id=served.run_id,
        service=service,
        ended=ended,
        secure=_secure_terms(served),
    )
    project = replace(served.project, runtime=runtime)
    try:
        summary = run(project, served.folder, console=console)
    except RunInterruptedError:
        raise RunStoppedError(
            "Interrupted. All finished rounds and accepted contributions are saved; go "
            "on with: fedtrain-aggregator serve"
        ) from None
    newest = newest_intact(served.folder)
    if newest is not None:
        rounds.committed(newest.rounds_done - 1, newest.state_sha256)
    rounds.finish("finished", _in_words(config, summary))
    if served.plan is not None:
        forget_own_key(served.plan, served.folder)
    return summary


def write_ended(federation: Federation, run_id: str, text: str) -> str:
    """Writes what a run reached that was ended while nothing served it.

    Returns:
      Where it is, in a sentence.
    """
    run_ = prepared(federation, run_id, draws=False)
    try:
        run(
            run_.project,
            run_.folder,
            console=Console(quiet=True),
            ended=StoppedError(f"The run was ended by the operator: {text}."),
        )
    except StoppedError as error:
        return str(error)
    return ""


def _secure_terms(served: ServedRun) -> SecureTerms | None:
    if served.plan is None or served.authority is None:
        return None
    return secure_terms(
        served.project.config, served.authority, plan_sha256=served.plan.sha256
    )


def _in_words(config: ProjectConfig, summary: dict[str, Any]) -> str:
    done, planned = summary["rounds"], config.rounds.num_rounds
    if done == planned or config.stop is None:
        return f"all {planned} rounds are done"
    return (
        f"{done} of {planned} rounds are done: {config.stop.metric} no longer improved"
    )


def _with_noise(config: ProjectConfig, approved: Plan) -> ProjectConfig:
    """``config`` with the noise that partners approved: it need not be solved again."""
    if config.privacy is None or approved.privacy is None:
        return config
    sections: Any = approved.task["sections"]
    noise = {"noise_multiplier": sections["privacy"]["noise_multiplier"]}
    changed: Any = {"privacy": config.privacy.model_copy(update=noise)}
    if "evaluation" in sections:
        counted = sections["evaluation"]["noise_multiplier"]
        noise = {"noise_multiplier": counted, "epsilon": None}
        changed["evaluation"] = config.evaluation.model_copy(update=noise)
    return config.model_copy(update=changed)


def _check_plan(federation: Federation, project: Project) -> None:
    approved = federation.plan()
    made = plan_for(project, operator=federation.operator)
    if made.sha256 != approved.sha256:
        raise ConfigError(
            f"{federation.project} now gives the plan {made.sha256[:16]}, but partners "
            f"were asked to approve {approved.sha256[:16]}. Undo the change, or make a "
            "new federation with `fedtrain-aggregator init --home`."
        )
