"""A run behind an open port, with its page and its stopper."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

from rich.console import Console

from aggregator.calls import Served
from aggregator.events import now_ms
from aggregator.home import Federation
from aggregator.journal import Journal
from aggregator.page import Doors, Page
from aggregator.page_access import Access, token_in
from aggregator.page_metrics import PageMetrics
from aggregator.page_state import Shown
from aggregator.rounds import Rounds
from aggregator.seen import read_seen
from aggregator.server import Server, serving
from aggregator.stopping import Stopper, watched
from aggregator.traffic import PartnerSeen
from fedtrain.project.agreed_session import has_regions
from fedtrain.project.secure_session import TOP

_TELL_S = 30.0
_HERE_S = 90


class OpenRun(NamedTuple):
    """A run behind an open port.

    Attributes:
      rounds: Of the run.
      partners: When each was last seen; asked again each time.
      stopper: Knows whether the operator has asked for its end.
      regions_s: Above regions, how long all of them are told of the end; else 0.
    """

    rounds: Rounds
    partners: Mapping[str, PartnerSeen]
    stopper: Stopper
    regions_s: float = 0.0


def opened_run(
    federation: Federation,
    journal: Journal,
    run_id: str,
    stack: ExitStack,
    console: Console,
) -> OpenRun:
    """The run's rounds, behind an open port until ``stack`` is left."""
    plan = federation.plan()
    rounds = Rounds(
        journal, run_id=run_id, plan_sha256=plan.sha256, folder=federation.spool
    )
    authority, service = federation.authority(), federation.service()
    served = Served(rounds, authority, plan.canonical(), federation.sequences)
    server = Server(served, address=service.address)
    partners = server.traffic.partners
    partners.update(read_seen(federation.seen))
    access = Access(token_in(federation.page_token), authority)
    shown = Shown(federation, plan, authority, rounds, partners)
    server.registry.register(PageMetrics(shown))
    page = Page(
        shown,
        Doors(service.page, access, server.registry, federation.seen),
    )
    port = stack.enter_context(serving(server, page))
    host, page_host = (a.rpartition(":")[0] for a in (service.address, service.page))
    console.print(f"Serving {run_id} on {host}:{port}", highlight=False)
    console.print(
        f"Page https://{page_host}:{page.port}/, its token is in "
        f"{federation.page_token}",
        highlight=False,
        soft_wrap=True,
    )
    stopper = stack.enter_context(watched(federation, rounds))
    return OpenRun(rounds, partners, stopper, _regions_s(federation))


def _regions_s(federation: Federation) -> float:
    """A region that adds up calls nobody for so long, and its partners wait for it."""
    is_top = federation.region == TOP and has_regions(federation.plan())
    return federation.service().deadline_s if is_top else 0.0


def seen_lately(opened: OpenRun) -> dict[str, PartnerSeen]:
    """The partners that have called within 90 seconds."""
    recently = now_ms() - 1000 * _HERE_S
    seen = dict(opened.partners)
    return {n: one for n, one in seen.items() if one.last_seen_unix_ms >= recently}


def tell_the_end(opened: OpenRun, console: Console, *, everybody: bool = False) -> None:
    """Keeps the port open until the partners that are there know of the end.

    Regions are all waited for: each has partners that hear of it there. Ctrl-C or
    SIGTERM ends that wait, and nothing else.
    """
    is_top = opened.regions_s > 0
    here = set(opened.partners if everybody or is_top else seen_lately(opened))
    most_s = opened.regions_s or _TELL_S
    give_up = time.monotonic() + most_s
    if not here <= opened.rounds.told_the_end:
        limit = f"{most_s:g} s at most{'; Ctrl-C ends this wait' if is_top else ''}"
        console.print(f"Telling partners that the run has ended ({limit})")
    with suppress(KeyboardInterrupt) if is_top else nullcontext():
        while not here <= opened.rounds.told_the_end and time.monotonic() < give_up:
            time.sleep(0.1)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does: the port drains, and all is resumable."""

    def interrupt(number: int, frame: Any) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
