"""A real client process with numpy work: ``light_client.py INVITATION HOME COUNTER``.

It appends "c" to COUNTER for each computation, and "T" if TensorFlow was loaded.
"""

import sys
from pathlib import Path

from light_work import Bank, LightWork

from clients.home import Home
from fedtrain.wire.enrolment import read_invitation


class CountedWork(LightWork):
    """Says on the disk that it computed, for a parent whose child is killed."""

    def compute(self, task, broadcast):
        with counter.open("a") as file:
            file.write("c")
        return super().compute(task, broadcast)


invitation = read_invitation(Path(sys.argv[1]))
counter = Path(sys.argv[3])
home = Home(Path(sys.argv[2]), invitation.client_id)
bank = Bank(home, invitation, work=CountedWork())
bank.run()
if "tensorflow" in sys.modules:
    with counter.open("a") as file:
        file.write("T")
