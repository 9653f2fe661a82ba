"""A partner without TensorFlow: its answer is twice the broadcast, and some noise."""

import os
import time

import numpy as np

from clients.agent import Agent, Local
from clients.audit import entries
from clients.home import Home
from clients.policy import policy_for, write_policy
from clients.transport import Transport, caller_of
from clients.work import Cost
from fedtrain.core.errors import BudgetExhaustedError
from fedtrain.wire.acceptance import accept
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys


class LightWork:
    """``Work`` with numpy; counts how often it computed."""

    num_examples = 10
    kept = b""

    def __init__(self, *, unit=None, counts=None):
        self.tasks = []
        self.has_forgotten = False
        self._cost = None if unit is None else Cost(unit, counts)

    def cost(self, task):
        return self._cost

    def compute(self, task, broadcast):
        self.tasks.append(task)
        noise = np.frombuffer(os.urandom(1), np.uint8)[0] / np.float32(256.0)
        return [np.asarray(2 * array + noise, np.float32) for array in broadcast]

    def forget(self):
        self.has_forgotten = True


class LightOdometer:
    """Counts charges; ``budget`` is how many answers may leave."""

    def __init__(self, budget=1000):
        self.budget = budget
        self.charged = []

    def check(self, task, cost, *, max_epsilon):
        if task not in self.charged and len(self.charged) >= self.budget:
            raise BudgetExhaustedError("too much")

    def charge(self, task, cost, *, max_epsilon):
        self.check(task, cost, max_epsilon=max_epsilon)
        if task not in self.charged:
            self.charged.append(task)

    def spent(self):
        return {"epsilon": float(len(self.charged)), "unit": "example", "delta": 1e-5}

    def head(self):
        return {"file": "light", "length": len(self.charged), "hash": ""}

    def expect(self, head):
        pass


class Bank:
    """One partner's home, invitation, work and odometer; and what its agent said."""

    def __init__(self, home, invitation, *, work=None, odometer=None):
        self.home = home
        self.invitation = invitation
        self.work = work or LightWork()
        self.odometer = odometer or LightOdometer()
        self.said = []
        self.pauses = []
        self.on_pause = lambda: None
        self.on_event = lambda event: None

    @classmethod
    def admitted(cls, folder, authority, terms):
        home = Home(folder, folder.name)
        request = EnrolmentRequest.of(home.client_id, new_keys(folder))
        bank = cls(home, authority.admit(request, terms))
        bank.approve()
        return bank

    def approve(self, **changes):
        plan = self.invitation.parsed_plan()
        policy = policy_for(plan).model_copy(update=changes)
        write_policy(self.home.policy_path, policy.approving(plan))

    def run(self):
        with self.home.alone():
            accept(self.invitation, self.home.path)
            with Transport(caller_of(self.invitation, self.home)) as calls:
                Agent(calls, self.home, self.invitation, self._local()).run()

    def _local(self):
        def work_of(plan):
            self.said.append("work")
            return self.work

        return Local(
            work_of=work_of,
            odometer_of=lambda plan: self.odometer,
            tell=self._hear,
            pause=self._pause,
        )

    def _hear(self, event):
        self.said.append(event.what)
        self.on_event(event)

    def _pause(self, seconds):
        self.pauses.append(seconds)
        self.on_pause()
        time.sleep(min(seconds, 0.02))

    @property
    def left(self):
        return [entry["what"] for entry in entries(self.home.audit_path)]
