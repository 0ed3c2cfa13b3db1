"""Activities at the app that runs them, and their way back."""

from dataclasses import replace

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sidecar.core import activities, events, operations
from sidecar.core.errors import MalformedError
from sidecar.core.identity import AppIdentity, Context
from sidecar.core.model import Changes, Kind, Outcome, Reminder
from sidecar.schema import taskhub_pb2 as pb
from tests.core.builders import ME, ML, NOW, SECOND, Flow, end, kind_of, message, outcome_of, result, task

HERE = AppIdentity("default", "ml")


def sent() -> Reminder:
    """Return an activity of app "orders" as it leaves for app "ml"."""
    [reminder] = Flow().start().turn(task(0, "score", app="ml", input=StringValue(value="5"))).set
    return reminder


def there() -> Context:
    return Flow(HERE, NOW + SECOND).at


def test_an_own_activity_ends_with_the_answer_of_its_worker() -> None:
    flow = Flow().start()
    [request] = flow.turn(task(0)).set
    decision = flow.take(activities.activity_done(flow.at, flow.live, request, outcome_of(request)))
    assert decision.reply.outcome is Outcome.DONE
    assert (flow.last.required, set(flow.last.dropped), flow.last.closed) == ((request.id,), {request.id}, (0,))
    assert [kind_of(row.event) for row in flow.state.inbox] == ["task_completed"]
    again = activities.activity_done(flow.at, flow.live, request, outcome_of(request))
    assert again.changes == Changes(dropped=(request.id,), required=(request.id,))
    assert again.reply.outcome is Outcome.DUPLICATE


@pytest.mark.parametrize("fate", ["ended", "purged"])
def test_an_own_activity_that_nobody_waits_for_is_used_up_all_the_same(fate: str) -> None:
    flow = Flow().start()
    [request] = flow.turn(task(0)).set
    if fate == "ended":
        flow.turn(end())
    else:
        flow.take(operations.purge(flow.at, flow.live, force=True))
    decision = activities.activity_done(flow.at, flow.live, request, outcome_of(request))
    assert decision.changes == Changes(dropped=(request.id,), required=(request.id,))
    assert decision.reply.outcome is (Outcome.DUPLICATE if fate == "ended" else Outcome.MISSING)


def test_an_activity_of_another_app_is_taken_in_with_its_way_back() -> None:
    message_of_peer = replace(sent(), id=77, target=ML.activity("default", "w::0::1"))
    changes = activities.accept_activity(there(), message_of_peer)
    [taken] = changes.set
    assert changes == Changes(set=(taken,))
    assert taken == replace(message_of_peer, id=1, owner=0, due=NOW + SECOND)
    assert (taken.source, taken.call) == (ME.workflow("default", "w"), sent().call)


def test_an_activity_whose_request_cannot_be_read_is_refused() -> None:
    with pytest.raises(MalformedError):
        activities.accept_activity(there(), replace(sent(), payload=b"\xff"))


def test_the_result_of_an_activity_of_another_app_replaces_it_and_resolves_the_call_at_home() -> None:
    home = Flow().start()
    [request] = home.turn(task(0, app="ml")).set
    at = there()
    [taken] = activities.accept_activity(at, request).set
    failed = pb.ActivityResponse(task_id=0, failure=pb.FailureDetails(error_type="Broken"))
    changes = activities.foreign_activity_done(at, taken, events.task_result(at.now, failed))
    [back] = changes.set
    assert changes == Changes(set=(back,), dropped=(taken.id,), required=(taken.id,))
    assert (back.kind, back.owner, back.target, back.call) == (Kind.RESULT, 0, request.source, request.call)
    assert (back.id > taken.id, back.kept_until_result, back.due) == (True, False, at.now)
    assert home.arrive(back, message()).reply.outcome is Outcome.DONE
    assert home.last.dropped == (request.id,)
    event = events.decode(home.state.inbox[0].event)
    assert event.task_failed.failure.error_type == "Broken"
    assert event.router == pb.Router(source_app_id="orders", target_app_id="ml")


def test_a_withdrawn_activity_goes_only_if_it_is_still_there() -> None:
    assert activities.withdrawn(sent()) == Changes(dropped=(sent().id,), required=(sent().id,))


def test_the_withdrawal_of_an_activity_names_the_call_under_which_it_was_taken_in() -> None:
    flow = Flow().start()
    [request] = flow.turn(task(0, app="ml")).set
    flow.take(operations.terminate(flow.at, flow.live, None, recurse=False))
    [withdrawal] = flow.last.set
    assert (withdrawal.kind, withdrawal.call, withdrawal.source) == (Kind.WITHDRAW, request.call, request.source)
    assert flow.arrive(result(request), message()).reply.outcome is Outcome.DUPLICATE
