"""Five banks that add up by secure aggregation, and their aggregator; all of numpy."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from light_work import Bank, LightWork

from aggregator.authority import Terms
from aggregator.calls import Served
from aggregator.journal import Journal
from aggregator.rounds import RoundCall, Rounds
from aggregator.secure_terms import secure_terms
from aggregator.server import Server, serving
from clients.pins import pin
from clients.work import Cost
from fedtrain.project.read import checked_config
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.plan import Plan, PlanPrivacy

NAMES = tuple(f"bank-{letter}" for letter in "abcde")
WORDS = 70_001  # more than one chunk, and an odd number
DEADLINE_S = 1000.0
SECTIONS = {
    "name": "credit",
    "seed": 0,
    "data": {"path": "rows", "schema_path": "the plan's"},
    "model": {"name": "dense_classifier"},
    "rounds": {"num_rounds": 3, "algorithm": "fed_sgd", "secure_aggregation": True},
    "client": {"sampling_rate": 0.5, "expected_batch_size": 4.0},
    "privacy": {
        "unit": "example",
        "trust": "distributed",
        "neighboring_relation": "add_or_remove_one",
        "delta": 1e-5,
        "sampling": "poisson",
        "clipping_norm": 1.0,
        "noise_multiplier": 2.0,
    },
    "service": {"clients": list(NAMES), "rows_per_client": 10},
}


def secure_plan():
    return Plan(
        name="credit",
        operator="Example Credit Bureau",
        software="fedtrain 0.1.0",
        task={"sections": SECTIONS, "schema": {}},
        broadcast=(ArraySpec((2,), "float32"),),
        contribution=(ArraySpec((WORDS,), "uint32"),),
        num_rounds=3,
        report_goal=5,
        least_reports=4,
        deadline_s=DEADLINE_S,
        privacy=PlanPrivacy(
            unit="example",
            trust="distributed",
            neighboring_relation="add_or_remove_one",
            delta=1e-5,
            epsilon=2.0,
            mechanism={"name": "discrete_gaussian"},
            accountant="PLD",
        ),
        secure_aggregation=True,
        leaves=("The change of the model's weights, behind masks.",),
    )


class WordsWork(LightWork):
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


def words_of(name, round_number, attempt=0):
    entropy = [NAMES.index(name), round_number, attempt]
    random = np.random.default_rng(entropy)
    return random.integers(0, 2**32, WORDS, np.uint32)


def sum_of(names, round_number, attempt=0):
    return sum((words_of(name, round_number, attempt) for name in names), np.uint32(0))


class Clock:
    """Stands still until a test moves it: no partner is lost by a slow machine."""

    now = 0.0

    def __call__(self):
        return self.now


class Federation:
    """An aggregator that can be started again, and its banks."""

    def __init__(self, folder, authority):
        self.folder = folder
        self.authority = authority
        self.plan = secure_plan()
        self.clock = Clock()
        self.address = "127.0.0.1:0"
        self.banks = [
            Bank.admitted(folder / name, authority, self._terms()) for name in NAMES
        ]
        for bank in self.banks:
            bank.work = WordsWork(bank.home.client_id)
        self.terms = secure_terms(
            checked_config(SECTIONS, file="test"),
            authority,
            plan_sha256=self.plan.sha256,
        )
        self.attempts = []
        self.pool = ThreadPoolExecutor(len(NAMES) + 1)

    def _terms(self):
        return Terms(self.plan, self.address, "localhost")

    def _invite(self, port):
        """All are admitted and the port is known: invites the banks."""
        self.address = f"127.0.0.1:{port}"
        for bank in self.banks:
            name = bank.home.client_id
            bank.invitation = self.authority.invitation(name, self._terms())
            pin(bank.home.pins_path, bank.invitation)

    @contextlib.contextmanager
    def aggregator(self):
        """Rounds behind the port; left, the process might as well have been killed."""
        journal = Journal(self.folder / "journal")
        rounds = Rounds(
            journal,
            run_id="run",
            plan_sha256=self.plan.sha256,
            folder=self.folder / "spool",
            clock=self.clock,
        )
        served = Served(
            rounds,
            self.authority,
            self.plan.canonical(),
            self.folder / "sequences.log",
        )
        with serving(Server(served, address=self.address), grace_s=0.5) as port:
            if self.address.endswith(":0"):
                self._invite(port)
            try:
                yield rounds
            finally:
                rounds.stop()
        journal.close()

    def join(self, names=NAMES):
        """Banks take part, in threads of their own."""
        banks = [bank for bank in self.banks if bank.home.client_id in names]
        return [self.pool.submit(bank.run) for bank in banks]

    def close(self):
        """Ends banks that a failed test has left waiting."""

        def ends(*_):
            raise SystemExit

        for bank in self.banks:
            bank.on_pause = bank.on_event = ends
        self.pool.shutdown(cancel_futures=True)

    def collecting(self, rounds, round_number=0):
        """A round that is collected beside the test."""
        return self.pool.submit(rounds.collect, self.call(round_number))

    def call(self, round_number=0, cohort=NAMES):
        return RoundCall(
            run_id="run",
            round_number=round_number,
            kind="train",
            cohort=tuple(cohort),
            report_goal=len(cohort),
            least_reports=4,
            deadline_s=DEADLINE_S,
            max_deadlines=3,
            broadcast=[np.full(2, round_number, np.float32)],
            contribution=self.plan.contribution,
            info={},
            before_attempt=self.attempts.append,
            secure=self.terms,
        )
