"""``fedtrain-aggregator demo --secure``: five partners, masked sums, one is killed."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aggregator.demo_data import CLINICS, DATA_AND_MODEL, write_clinics_data
from aggregator.demo_shell import DemoFailedError, Shell
from aggregator.home import Federation, federation_in
from aggregator.journal import stored_events
from fedtrain.cli.output import note, show_table, show_text
from fedtrain.core.addresses import free_addresses
from fedtrain.core.files import write_atomically
from fedtrain.wire.arrays import num_bytes
from fedtrain.wire.plan import Plan

_KILLED = CLINICS[-1]
_KILLED_IN = 1
_POLL_S = 0.02
_PROJECT = """\
# Written by `fedtrain-aggregator demo --secure`: {data}.
name = "demo-secure"
seed = 0

{data_and_model}

[rounds]
algorithm = "fed_sgd"        # a round is one step: one sum of clipped gradients
num_rounds = {num_rounds}
secure_aggregation = true    # the operator sees their sum only
num_colluding = 1            # also together with one of the partners

[client]
sampling_rate = 0.5
expected_batch_size = 40.0

[privacy]
unit = "example"
trust = "distributed"        # every partner adds a share of the noise
neighboring_relation = "add_or_remove_one"
delta = 1e-3
sampling = "poisson"
clipping_norm = 1.0
target_epsilon = {epsilon}

[service]
clients = {clients}
rows_per_client = 80
address = "{address}"
page = "{page}"
deadline_s = {deadline_s}
further_attempts = 2
"""


def demo_secure(
    folder: Path,
    *,
    num_rounds: int = 5,
    epsilon: float = 8.0,
    deadline_s: float = 30.0,
) -> dict[str, Any]:
    """Five partners add up by secure aggregation; one is killed in the second round.

    Args:
      folder: New; keeps everything: keys, journal, logs, the run.
      num_rounds: Of training; at least 3.
      epsilon: Of the plan.
      deadline_s: How long a step waits for the partner that is gone.

    Returns:
      Where things are, what the aggregator could see, and how long it took.

    Raises:
      DemoFailedError: If a step fails; it is named, with its last words.
    """
    began = time.monotonic()
    folder.mkdir(parents=True)
    at_least = max(num_rounds, _KILLED_IN + 2)  # the partner comes back
    shell = enrolled(folder, num_rounds=at_least, epsilon=epsilon, wait_s=deadline_s)
    with contextlib.ExitStack() as stack:
        for partner in CLINICS:
            stack.enter_context(joined(shell, partner))
        is_over = threading.Event()
        loses = _Loss(
            shell, is_over, lambda: stack.enter_context(joined(shell, _KILLED))
        )
        loses.start()
        try:
            shell.run("fedtrain-aggregator", "serve")
        finally:
            is_over.set()
            loses.join()
        # On a slow machine all rounds are over before its program is up again.
        shell.wait(may_be_late=_KILLED)
    shell.run("fedtrain-client", "audit", "verify", _KILLED)
    seen = what_was_seen(federation_in(folder / "aggregator-home"))
    if not loses.has_killed:
        raise DemoFailedError(f"{_KILLED} was never killed; see {folder}/*.log.")
    _show(seen)
    seconds = round(time.monotonic() - began, 1)
    return {"folder": str(folder), "seconds": seconds, **seen}


def enrolled(folder: Path, *, num_rounds: int, epsilon: float, wait_s: float) -> Shell:
    """A federation of five clinics in ``folder`` that have approved each other's keys.

    Args:
      folder: There already, and empty.
      num_rounds: Of training.
      epsilon: Of the plan.
      wait_s: The deadline of a step.
    """
    _write_project(folder, num_rounds, epsilon, wait_s)
    shell = Shell(folder)
    shell.run("fedtrain-aggregator", "init", "federation.toml", "--operator", "demo")
    for partner in CLINICS:
        shell.run("fedtrain-client", "request", partner)
        shell.run("fedtrain-aggregator", "admit", f"{partner}.request", "--yes")
    # Only now all keys are known, so that each partner can pin those of the others.
    shell.run("fedtrain-aggregator", "partners", "invite", *CLINICS)
    for partner in CLINICS:
        if partner == CLINICS[0]:
            shell.run("fedtrain-client", "review", f"{partner}.invitation")
        shell.run("fedtrain-client", "approve", f"{partner}.invitation")
    return shell


def joined(shell: Shell, partner: str) -> Any:
    """A partner's program in the background, while the context lasts."""
    files = (f"{partner}.invitation", "--data", f"{partner}.csv")
    command = ("fedtrain-client", "join", *files, "--format", "json")
    return shell.background(partner, *command)


def is_computing(line: str, round_number: int) -> bool:
    """Whether a partner's line says that its shares are dealt in that round."""
    if not line.startswith("{"):
        return False
    try:
        said = json.loads(line)
    except ValueError:  # the partner is writing it
        return False
    about = str(said.get("text", "")).startswith(f"Round {round_number + 1}:")
    return said.get("event") == "computing" and about


def what_was_seen(federation: Federation) -> dict[str, Any]:
    """What the aggregator's own journal says that it received, round by round."""
    plan = federation.plan()
    database = federation.service().database
    drafts = [one.draft for one in stored_events(federation.journal, database)]
    rounds = [
        {
            "round": (draft.round_number or 0) + 1,
            "attempt": draft.attempt,
            "in the sum": ", ".join(draft.body["accepted"]),
            "lost": "; ".join(f"{k}: {v}" for k, v in draft.body["lost"].items()),
            "bytes of each": num_bytes(plan.contribution),
            "sum": draft.body["sum"][:12],
        }
        for draft in drafts
        if draft.kind == "closed"
    ]
    return {"rounds": rounds, "could_see": _could(plan), "could_not_see": _COULD_NOT}


def _could(plan: Plan) -> list[str]:
    size = num_bytes(plan.contribution)
    return [
        "who took part, when, and who was lost at which step (the table above)",
        f"of each partner and round {size} bytes, which masks make look random, and "
        "some thousand bytes of keys, sealed shares and signatures",
        "of each round the sum of those in it, with the noise of all of them in it: "
        f"{_promised(plan)}",
    ]


def _promised(plan: Plan) -> str:
    promise = plan.privacy
    if promise is None:
        return "without a bound on what it tells of a row"
    claimed = promise.amplification or "no amplification by sampling is claimed"
    return (
        f"epsilon at most {promise.epsilon:.3g} for all rounds and further attempts "
        f"together (unit {promise.unit}, {promise.neighboring_relation}, delta "
        f"{promise.delta:g}, trust {promise.trust}, {promise.accountant}, {claimed})"
    )


_COULD_NOT = [
    "a row, a gradient or a contribution of any single partner, also not of the one "
    "that was killed",
    "a sum without noise, or a sum over fewer partners than the threshold",
    "together with one partner that shows it all it knows: more than the sum of the "
    "others in the round, with their noise in it",
]


class _Loss(threading.Thread):
    """Kills one partner while it computes its contribution, then starts it again."""

    def __init__(
        self, shell: Shell, is_over: threading.Event, again: Callable[[], Any]
    ) -> None:
        super().__init__(name="loss", daemon=True)
        self._shell = shell
        self._is_over = is_over
        self._again = again
        self.has_killed = False

    def run(self) -> None:
        while not self._is_over.wait(_POLL_S):
            if any(
                is_computing(line, _KILLED_IN) for line in self._shell.heard(_KILLED)
            ):
                self._shell.kill(_KILLED)
                self.has_killed = True
                self._again()
                return


def _show(seen: dict[str, Any]) -> None:
    show_table(seen["rounds"], title="What the aggregator opened")
    for title, lines in (
        ("The aggregator could see", seen["could_see"]),
        ("It could not see", seen["could_not_see"]),
    ):
        show_text(title, style="bold")
        for line in lines:
            show_text(f"  - {line}")


def _write_project(
    folder: Path, num_rounds: int, epsilon: float, deadline_s: float
) -> None:
    address, page = free_addresses(2)
    data = write_clinics_data(folder)
    text = _PROJECT.format(
        data=data,
        data_and_model=DATA_AND_MODEL,
        num_rounds=num_rounds,
        epsilon=epsilon,
        clients=json.dumps(CLINICS),
        address=address,
        page=page,
        deadline_s=deadline_s,
    )
    write_atomically(folder / "federation.toml", text)
    note(f"Data: {data}. Everything is in {folder}.\n")
