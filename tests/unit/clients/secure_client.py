"""A real client process: ``secure_client.py INVITATION HOME MARK [WHEN]``.

WHEN is "before" (its masked contribution leaves) or "after": then, in round 0, it
writes MARK and waits to be killed.
"""

import sys
import time
from pathlib import Path

from light_work import Bank
from secure_banks import WordsWork

from clients.home import Home
from fedtrain.wire.enrolment import read_invitation

invitation = read_invitation(Path(sys.argv[1]))
mark, when = Path(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else ""
home = Home(Path(sys.argv[2]), invitation.client_id)
bank = Bank(home, invitation, work=WordsWork(home.client_id))


def waits():
    mark.touch()
    time.sleep(600)


if when == "before":
    bank.work.before_computing = lambda task: task.round_number == 0 and waits()
if when == "after":
    bank.on_event = lambda event: event.facts.get("step") == "INPUT" and waits()
bank.run()
