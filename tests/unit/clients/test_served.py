import pytest
from secure_banks import secure_plan

from clients.served import round_task
from fedtrain.core.errors import StoppedError
from fedtrain.wire import messages_pb2 as pb


@pytest.mark.parametrize("kind", [pb.TRAIN, pb.EVALUATE])
def test_nothing_is_sent_by_itself_under_a_plan_with_secure_aggregation(kind):
    with pytest.raises(StoppedError, match="by itself"):
        round_task(secure_plan(), "run", pb.Task(kind=kind))


def test_no_step_of_secure_aggregation_is_answered_without_a_plan_of_it(plan):
    with pytest.raises(StoppedError, match="does not have"):
        round_task(plan, "run", pb.Task(kind=pb.TRAIN, step=pb.KEYS))


def test_a_step_is_a_task_of_its_round():
    task = pb.Task(kind=pb.TRAIN, step=pb.INPUT, round_number=2, attempt=1)
    asked = round_task(secure_plan(), "run", task)
    assert (asked.round_number, asked.attempt, asked.session) == (2, 1, "")
