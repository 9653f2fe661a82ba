"""Ten banks in three regions, their aggregators, and the one above; all of numpy."""

import contextlib
import subprocess
import sys
import threading

import numpy as np
from light_work import Bank, LightWork
from rich.console import Console
from secure_banks import SECTIONS, Clock, secure_plan

from aggregator.authority import Terms, init
from aggregator.calls import Served
from aggregator.home import federation_in
from aggregator.journal import Journal
from aggregator.region import region_of, serve_region
from aggregator.rounds import RoundCall, Rounds
from aggregator.secure_terms import secure_terms
from aggregator.server import Server, serving
from clients.pins import pin
from clients.work import Cost
from fedtrain.core.addresses import free_addresses
from fedtrain.project.agreed_session import agreed_session
from fedtrain.project.read import checked_config
from fedtrain.wire.arrays import ArraySpec

NAMES = tuple(f"bank-{letter}" for letter in "abcdefghij")
REGIONS = ("region-00", "region-01", "region-02")
WORDS = 1001
DEADLINE_S = 1000.0
REGIONAL = SECTIONS | {
    "rounds": SECTIONS["rounds"] | {"num_regions": len(REGIONS)},
    "service": {"clients": list(NAMES), "rows_per_client": 10},
}


def regional_plan(**rounds):
    sections = REGIONAL | {"rounds": REGIONAL["rounds"] | rounds}
    return secure_plan().model_copy(
        update={
            "task": {"sections": sections, "schema": {}},
            "contribution": (ArraySpec((WORDS,), "uint32"),),
            "report_goal": 4,
            "least_reports": 3,
            "deadline_s": DEADLINE_S,
        }
    )


def members_of(region):
    """The first region has four banks, the others three."""
    return {"region-00": NAMES[:4], "region-01": NAMES[4:7], "region-02": NAMES[7:]}[
        region
    ]


def words_of(name, round_number, attempt=0):
    random = np.random.default_rng([ord(name[-1]), round_number, attempt])
    return random.integers(0, 2**32, WORDS, np.uint32)


def sum_of(names, round_number, attempt=0):
    return sum((words_of(name, round_number, attempt) for name in names), np.uint32(0))


class WordsOfBank(LightWork):
    """Contributes words that follow from bank, round and attempt."""

    def __init__(self, name):
        super().__init__(unit="example", counts={})
        self.name = name
        self.before_computing = lambda task: None

    def cost(self, task):
        return Cost("example", {}, task.session)

    def compute(self, task, broadcast):
        self.tasks.append(task)
        self.before_computing(task)
        return [words_of(self.name, task.round_number, task.attempt)]


class Beside(threading.Thread):
    """Runs a function in a thread that keeps no test from ending."""

    def __init__(self, run, *args, **options):
        super().__init__(daemon=True)
        self._run = lambda: run(*args, **options)
        self._result = self._error = None
        self.start()

    def run(self):
        try:
            self._result = self._run()
        except BaseException as error:  # noqa: BLE001 - raised again by ``result``
            self._error = error

    def result(self, timeout_s):
        self.join(timeout_s)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


class Regions:
    """All that ten banks, three regions and an operator have on their disks."""

    def __init__(self, folder):
        self.folder = folder
        self.plan = regional_plan()
        self.clock = Clock()
        self.below = {}
        self.attempts = []
        self.top = init(folder / "operator", name="credit", hosts=["localhost"])
        self.address, *others = free_addresses(1 + 2 * len(REGIONS))
        terms = Terms(self.plan, self.address, "localhost")
        self.regions = admitted(folder, REGIONS, self.top, terms)
        self.federations = {}
        self.banks = {}
        for number, name in enumerate(REGIONS):
            path = folder / f"{name}-home"
            own = dict(zip(("address", "page"), others[2 * number :], strict=False))
            region_of(self.regions[name].invitation, path, addresses=own)
            made = self.federations[name] = federation_in(path)
            authority, terms = made.authority(), made.terms()
            self.banks |= admitted(folder, members_of(name), authority, terms)
        for name, bank in self.banks.items():
            bank.work = WordsOfBank(name)
        self.terms = secure_terms(
            checked_config(REGIONAL, file="test"),
            self.top,
            plan_sha256=self.plan.sha256,
        )

    @contextlib.contextmanager
    def above(self):
        """Rounds behind the top's port."""
        journal = Journal(self.folder / "journal")
        rounds = Rounds(
            journal,
            run_id="run",
            plan_sha256=self.plan.sha256,
            folder=self.folder / "spool",
            clock=self.clock,
        )
        served = Served(rounds, self.top, self.plan.canonical())
        server = Server(served, address=self.address)
        self.traffic = server.traffic
        with serving(server, grace_s=0.5):
            try:
                yield rounds
            finally:
                rounds.stop()
        journal.close()

    def said(self, name):
        """What a region has told the top that it does."""
        seen = self.traffic.partners.get(name)
        return "" if seen is None else seen.status

    def clocked(self, journal, *, folder, **options):
        """The rounds of a region in this process, by the clock of the test."""
        rounds = Rounds(journal, folder=folder, clock=self.clock, **options)
        self.below[folder.parent.name.removesuffix("-home")] = rounds
        return rounds

    def region(self, name):
        """A regional aggregator in this process."""
        region = self.regions[name]
        return Beside(
            serve_region,
            self.federations[name],
            region.invitation,
            region.home,
            console=Console(quiet=True),
        )

    def region_process(self, name):
        """A regional aggregator as people run it."""
        region, path = self.regions[name], self.folder / f"{name}.invitation"
        path.write_bytes(region.invitation.to_bytes())
        homes = ["--home", f"{path.stem}-home", "--client-home", region.home.path]
        main = "from aggregator.cli import main; main()"
        command = [sys.executable, "-c", main, "region", "serve", path, *homes]
        return subprocess.Popen(command, cwd=self.folder)

    def join(self, names=NAMES):
        """Banks take part, each in a thread of its own."""
        return [Beside(self.banks[name].run) for name in names]

    def collecting(self, rounds, round_number=0):
        """A round of the top that is collected beside the test."""
        return Beside(rounds.collect, self.call(round_number))

    def call(self, round_number):
        return RoundCall(
            run_id="run",
            round_number=round_number,
            kind="train",
            cohort=self.terms.regions,
            report_goal=len(REGIONS),
            least_reports=len(REGIONS),
            deadline_s=DEADLINE_S,
            max_deadlines=3,
            broadcast=[np.full(2, round_number, np.float32)],
            contribution=self.plan.contribution,
            info={},
            before_attempt=self.attempts.append,
            secure=self.terms,
        )


def admitted(folder, names, authority, terms):
    """Banks, or regions as the top's partners, that have pinned each other's keys."""
    banks = {name: Bank.admitted(folder / name, authority, terms) for name in names}
    for name, bank in banks.items():
        bank.invitation = authority.invitation(name, terms)
        pin(bank.home.pins_path, bank.invitation)
        assert set(bank.invitation.roster) == set(agreed_session(terms.plan, name)[1])
    return banks
