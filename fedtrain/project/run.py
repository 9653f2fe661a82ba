"""One run from its start, or from where it stopped, to its end."""

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.console import Console

from fedtrain.core.errors import BudgetExhaustedError, FedtrainError, StoppedError
from fedtrain.data.tabular import schema_of
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.build import Project
from fedtrain.project.compressed_run import save_final_weights
from fedtrain.project.diagnostics import announce_diagnostics, write_diagnostics
from fedtrain.project.distributed import Parts, parts_of, tell_run_folder
from fedtrain.project.phases import train_phases
from fedtrain.project.reached import FINISHED, Reached, status_after
from fedtrain.project.report_page import write_report_page
from fedtrain.project.run_facts import run_facts
from fedtrain.project.run_folder import NOISE_KEY, RunFolder, new_run_folder
from fedtrain.project.run_privacy import (
    ledger_of,
    meaning,
    run_privacy_of,
    write_privacy_report,
)
from fedtrain.project.scores import early_stop_of, evaluate_of
from fedtrain.project.stored import save_given_model, stored_toml
from fedtrain.project.summary import summarised
from fedtrain.project.weights_file import save_weights
from fedtrain.project.withheld import withholding
from fedtrain.rounds.checkpoint import CheckpointStore
from fedtrain.rounds.checks import Evaluate
from fedtrain.rounds.keepers import AsksAgain
from fedtrain.rounds.train import TrainingRun
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.replicas import Replicas
from fedtrain.tracking.jsonl import metrics_log
from fedtrain.tracking.profiler import profile_rounds
from fedtrain.tracking.progress import progress
from fedtrain.tracking.tensorboard import tensorboard_log


class RunInterruptedError(FedtrainError):
    """A run was stopped from outside; everything up to its last round is saved."""

    exit_code = 130


def start_run(project: Project) -> RunFolder:
    """Makes the folder of a new run; the first thing that is written."""
    config = project.config
    runs_dir = project.folder / config.tracking.runs_dir
    own_file = config.model.path if project.given_model is None else None
    folder = new_run_folder(
        runs_dir,
        config.name,
        config=stored_toml(project),
        model_file=project.folder / own_file if own_file else None,
    )
    save_given_model(folder, project.given_model)
    schema = schema_of(project.split.train)
    if schema is not None:
        schema.save(folder.schema)
    facts = run_facts(project) | {"project_sha256": folder.project_sha256()}
    if project.plan is not None:
        facts["ledger"] = str(ledger_of(project, folder).resolve())
    folder.write_json(folder.info, facts)
    return folder


def run(
    project: Project,
    folder: RunFolder,
    *,
    console: Console,
    diagnostics: bool = False,
    replicas: Replicas | None = None,
    ended: StoppedError | None = None,
) -> dict[str, Any]:
    """Runs what is still to do of a run, and writes all that it leaves behind.

    Args:
      project: What to run.
      folder: Of the run, new or interrupted.
      console: Where progress is shown.
      diagnostics: Whether exact figures about private rows are written too.
      replicas: Of all workers, where others take part; this one is their chief.
      ended: Why there are to be no more rounds; what was reached is written.

    Returns:
      The summary, as in ``summary.json``.

    Raises:
      RunInterruptedError: After Ctrl-C; says how to go on.
      BudgetExhaustedError, StoppedError: After writing what the rounds before it came
        to.
    """
    with folder.locked(), _status_kept(folder):
        started = time.perf_counter()
        tell_run_folder(folder)
        ledger = Ledger(ledger_of(project, folder))
        privacy = run_privacy_of(
            project,
            ledger,
            folder.path.name,
            noise_key=folder.read_json(folder.info).get(NOISE_KEY, ""),
        )
        if isinstance(project.runtime, AsksAgain):
            project.runtime.charges = privacy
        every = project.config.tracking.checkpoint_every
        store = CheckpointStore(folder.checkpoints, every=every)
        project, parts = parts_of(project, replicas, charges=privacy, store=store)
        reached = _reached_before(project, store, ended)
        if ended is None:
            _train(
                project,
                folder,
                parts,
                reached,
                evaluate=evaluate_of(project, privacy),
                console=console,
            )
        planned, project = project, reached.part_of(project)
        weights = save_final_weights(planned, folder, reached)
        if diagnostics:
            announce_diagnostics(folder)
        report = write_privacy_report(project, folder, privacy) if privacy else None
        with console.status("closing the run") as status:
            summary = summarised(
                project, folder, weights, privacy=report, told=status.update
            )
            if diagnostics:
                write_diagnostics(project, folder, weights.trained, told=status.update)
        summary["seconds"] = round(time.perf_counter() - started, 2)
        summary["status"] = reached.status
        summary["stop"] = reached.best.as_dict() if reached.best else None
        folder.write_json(folder.summary, summary)
        if project.config.tracking.html_report:
            write_report_page(project, folder, summary)
        reached.raise_if_stopped(folder)
    return summary


def _reached_before(
    project: Project, store: CheckpointStore, ended: StoppedError | None
) -> Reached:
    """Where an earlier sitting left the run; its start where there was none."""
    state = project.round_.init(project.starting_weights())
    stop, found = early_stop_of(project), store.latest(state)
    if found is None:
        return Reached(state, stop=stop, stopped=ended)
    return Reached(found.state, found.round_number, stop, found.best, stopped=ended)


def _train(
    project: Project,
    folder: RunFolder,
    parts: Parts,
    reached: Reached,
    *,
    evaluate: Evaluate | None,
    console: Console,
) -> None:
    config, first_round = project.config, reached.rounds_done
    with ExitStack() as stack:
        callbacks = _callbacks(project, folder, first_round, console)
        on_round = [stack.enter_context(callback) for callback in callbacks]
        on_round = [metrics_log(folder.metrics, first_round=first_round), *on_round]
        training = TrainingRun(
            round_=project.round_,
            dataset=project.split.train,
            sampler=project.sampler,
            runtime=parts.runtime,
            num_rounds=config.rounds.num_rounds,
            seed=project.seed,
            privacy=parts.privacy,
            evaluate=evaluate,
            evaluate_every=config.evaluation.every,
            stop=reached.stop,
            checkpoints=parts.checkpoints,
            on_round=[
                reached,
                *(withholding(project, callback) for callback in on_round),
            ],
        )
        try:
            if isinstance(project.runtime, CompiledRuntime):
                project.runtime.tell = partial(
                    console.print, style="dim", highlight=False
                )
            train_phases(
                project,
                training,
                lambda: reached.state,
                on_trained=lambda state: save_weights(folder.weights, state.weights),
            )
        except (BudgetExhaustedError, StoppedError) as error:
            reached.stopped = error


def _callbacks(
    project: Project, folder: RunFolder, first_round: int, console: Console
) -> Iterator[Any]:
    config = project.config
    num_rounds = config.all_rounds
    plan, round_ = project.plan, project.round_
    statement = meaning(plan, round_.mechanisms) if plan else None
    yield progress(
        num_rounds,
        first_round=first_round,
        privacy_statement=statement,
        console=console,
    )
    if config.tracking.tensorboard:
        every = 10 if config.tracking.histograms else num_rounds + 1
        yield tensorboard_log(
            folder.tensorboard, histograms_every=every, privacy_statement=statement
        )
    if config.tracking.profile_rounds:
        first, last = config.tracking.profile_rounds
        if last >= first_round:
            yield profile_rounds(
                folder.tensorboard,
                first=max(first, first_round),
                last=last,
                next_round=first_round,
            )


@contextmanager
def _status_kept(folder: RunFolder) -> Iterator[None]:
    _set_status(folder, "running")
    try:
        yield
    except KeyboardInterrupt:
        _set_status(folder, "interrupted")
        where = shlex.quote(os.path.relpath(folder.path))
        raise RunInterruptedError(
            "Interrupted. All finished rounds are saved; go on with: "
            f"fedtrain simulate --resume {where}"
        ) from None
    except (BudgetExhaustedError, StoppedError) as error:
        _set_status(folder, status_after(error), error=str(error))
        raise
    except BaseException as error:
        _set_status(folder, "failed", error=f"{type(error).__name__}: {error}")
        raise
    _set_status(folder, FINISHED)


def _set_status(folder: RunFolder, status: str, **facts: Any) -> None:
    info = folder.read_json(folder.info)
    info.pop("error", None)
    now = datetime.now(UTC).isoformat()
    folder.write_json(folder.info, info | {"status": status, "updated": now} | facts)
