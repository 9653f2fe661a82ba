"""A regional aggregator: towards its partners an aggregator, above it a partner.

The two halves are those that there are. Below, sessions, journal and port are of this
region's own authority; above, an agent with a home of its own answers the sessions of
the regional aggregators, and its work is the sum that the region has opened.
"""

import logging
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from aggregator import authority
from aggregator.home import Federation, current_run, found, note_run
from aggregator.journal import Journal
from aggregator.memory import give_memory_back
from aggregator.open_run import OpenRun, opened_run, seen_lately, tell_the_end
from aggregator.regional_sum import NoRows, RegionalSum
from aggregator.rounds import RunStoppedError
from aggregator.secure_terms import SecureTerms, check_all_admitted, secure_terms
from aggregator.serve import end_stopped
from aggregator.stopping import Stopper
from clients.agent import Agent, Event, Local
from clients.home import Home
from clients.patience import Patience
from clients.served import served_plan
from clients.transport import Transport, caller_of
from fedtrain.core.errors import ConfigError, StoppedError
from fedtrain.core.files import write_atomically
from fedtrain.project.agreed_session import is_regional
from fedtrain.project.config import ServiceSection
from fedtrain.project.read import checked_config
from fedtrain.project.run_folder import STOPPED
from fedtrain.project.toml_text import toml_text
from fedtrain.wire.acceptance import accept
from fedtrain.wire.enrolment import Invitation
from fedtrain.wire.plan import Plan

_LOG = logging.getLogger(__name__)
_MAX_DEADLINES = 2


def region_of(invitation: Invitation, path: Path, *, addresses: dict[str, str]) -> str:
    """Makes a regional aggregator's folder: authority, settings and the top's plan.

    Args:
      invitation: From the operator above, for this region.
      path: The new folder.
      addresses: ``address``, ``page`` and others of ``[service]`` that are the region's
        own; ``host`` is in the server's certificate.

    Returns:
      The fingerprint of the region's key, which its partners compare by phone.

    Raises:
      ConfigError: If the invitation is not for a regional aggregator, or an address is
        none; nothing was made.
    """
    plan, region = invitation.parsed_plan(), invitation.client_id
    if not is_regional(plan, region):
        raise ConfigError(
            f"The invitation of {region} is not for a regional aggregator: with "
            "rounds.num_regions they are called region-00, region-01 and so on."
        )
    host = addresses.get("host", "localhost")
    name = f"{plan.name}-{region}"
    federation = Federation(path, path / "federation.toml", name, region)
    sections = _sections(plan, addresses | {"host": host})
    checked_config(sections, file=federation.project)  # before anything is made
    made = authority.init(path / "authority", name=name, hosts=[host])
    head = "# Of a regional aggregator. Only [service] may be changed here."
    write_atomically(federation.project, f"{head}\n{toml_text(sections)}")
    federation.write_plan(plan)
    found(federation)
    return made.fingerprint


def serve_region(
    federation: Federation, invitation: Invitation, home: Home, *, console: Console
) -> None:
    """Takes part for a region until the run above has ended; resumable at any moment.

    Args:
      federation: The region's folder, from ``region_of``.
      invitation: From the operator above.
      home: With the keys and the policy towards the aggregator above.
      console: Where it is said what is served.

    Raises:
      ConfigError: If the folder is of another region or plan, or waits too long.
      StoppedError: If the run was ended, above or here; partners were told.
      RunStoppedError: If the operator has paused it here.
    """
    give_memory_back()
    plan = _agreed_plan(federation, invitation)
    secure = _terms(federation, plan)
    with ExitStack() as stack:
        stack.enter_context(home.alone())
        accept(invitation, home.path)
        above = stack.enter_context(Transport(caller_of(invitation, home)))
        service = federation.service()
        journal = Journal(federation.journal, service.database)
        stack.callback(journal.close)
        run_id = current_run(federation) or _run_above(above, invitation)
        note_run(federation, run_id)
        opened = opened_run(federation, journal, run_id, stack, console)
        stack.callback(opened.rounds.stop)
        ending = opened.rounds.book.ending
        if ending is not None:
            tell_the_end(opened, console, everybody=True)
            if ending.status == STOPPED:
                raise StoppedError(f"The run has ended: {ending.text}")
            return
        work = RegionalSum(opened.rounds, plan=plan, secure=secure, service=service)
        agent = Agent(above, home, invitation, _local(work, secure, opened))
        try:
            _take_part(agent, work, opened, console)
        except (RunStoppedError, StoppedError):
            end_stopped(federation, opened, console)
            _refuse_ended_here(opened.stopper)
            raise


def _take_part(
    agent: Agent, work: RegionalSum, opened: OpenRun, console: Console
) -> None:
    """Until the end above, which the region's partners are told in turn."""
    try:
        agent.run()
    except StoppedError as error:
        if work.has_ended:
            opened.rounds.finish(STOPPED, str(error))
            tell_the_end(opened, console, everybody=True)
        raise
    opened.rounds.finish("finished", "the run above the regions is finished")
    # One that was started again after the end has been called by nobody yet.
    tell_the_end(opened, console, everybody=True)


def _local(work: RegionalSum, secure: SecureTerms, opened: OpenRun) -> Local:
    def waits_for() -> str:
        _check_going_on(opened.stopper)
        if why := work.rests():
            return why
        seen, may = (
            seen_lately(opened).items(),
            secure.keys.keys() - opened.rounds.guilty,
        )
        here = [n for n, one in seen if n in may and one.status == "ready"]
        least = secure.parameters.threshold
        if len(here) >= least:
            return ""
        return f"{len(here)} of at least {least} partners are here"

    return Local(
        work_of=lambda plan: work,
        odometer_of=lambda plan: NoRows(),
        tell=_told,
        pause=partial(_paused, opened.stopper),
        waits_for=waits_for,
    )


def _paused(stopper: Stopper, seconds: float) -> None:
    """Sleeps; whatever is waited for above, the operator may stop this region."""
    _check_going_on(stopper)
    time.sleep(seconds)
    _check_going_on(stopper)


def _check_going_on(stopper: Stopper) -> None:
    if stopper.request is not None:
        raise RunStoppedError("This region is being stopped; start again to go on.")


def _refuse_ended_here(stopper: Stopper) -> None:
    text = stopper.ended()
    if text is not None:
        raise StoppedError(f"The operator has ended this region: {text}") from None


def _agreed_plan(federation: Federation, invitation: Invitation) -> Plan:
    """The plan of both levels, which is one."""
    plan = federation.plan()
    if federation.region != invitation.client_id:
        raise ConfigError(
            f"{federation.path} is of {federation.region or 'no region'}, and the "
            f"invitation is for {invitation.client_id}. Name another --home."
        )
    if plan.sha256 != invitation.plan_sha256:
        raise ConfigError(
            f"{federation.path} has the plan {plan.sha256[:16]}, which its partners "
            f"approve, and the invitation {invitation.plan_sha256[:16]}. A new plan is "
            "a new region: `fedtrain-aggregator region init --home`."
        )
    _check_deadlines(federation.service(), plan)
    return plan


def _terms(federation: Federation, plan: Plan) -> SecureTerms:
    """Of the plan itself: no setting of the region's own can change them."""
    config = checked_config(dict(plan.task["sections"]), file="the plan")
    known, region = federation.authority(), federation.region
    if current_run(federation) is None:
        check_all_admitted(config, known, region=region)
    terms = secure_terms(config, known, plan_sha256=plan.sha256, region=region)
    if terms is None:
        raise ConfigError(f"The plan {plan.name} has no secure aggregation.")
    return terms


def _check_deadlines(service: ServiceSection, plan: Plan) -> None:
    most_s = _most_deadlines(service.max_deadlines) * service.deadline_s
    if most_s > plan.deadline_s:
        raise ConfigError(
            f"The region's sessions may take {most_s:g} s, and the aggregator above "
            f"waits {plan.deadline_s:g} s for their sum. Lower service.deadline_s "
            f"(now {service.deadline_s:g}) or service.max_deadlines "
            f"({service.max_deadlines}) in the region's federation.toml."
        )


def _most_deadlines(max_deadlines: int) -> int:
    """In which an attempt here has a sum or has failed.

    A session that fails before it asks for contributions takes those of its keys and
    one more, and is begun anew; the last one takes those of its keys and four more.
    """
    return (max_deadlines - 1) * (max_deadlines + 1) + max_deadlines + 4


def _run_above(above: Transport, invitation: Invitation) -> str:
    """The run that is served above; it is waited for."""
    patience = Patience(reconnect=above.reconnect, tell=_LOG.info)
    hello = patience.until_answered(above.hello)
    served_plan(hello, invitation)
    return hello.run_id


def _sections(plan: Plan, addresses: dict[str, str]) -> dict[str, Any]:
    """Of the region's project file: the plan's, and where the region is to be found."""
    sections: dict[str, Any] = dict(plan.task["sections"])
    own = {name: text for name, text in addresses.items() if name != "host"}
    sections["service"] = {
        **sections["service"],
        **own,
        "hosts": [addresses["host"]],
        # One more, to send the sum.
        "deadline_s": plan.deadline_s / (_most_deadlines(_MAX_DEADLINES) + 1),
        "max_deadlines": _MAX_DEADLINES,
    }
    return sections


def _told(event: Event) -> None:
    _LOG.info("above: %s", event.text)
