"""Stories to begin with, and how a story is mutated."""

import random
from functools import cache
from typing import Any

from sidecar.edge.client_api.workflows import Workflows
from sidecar.edge.methods import TASKHUB as SERVICE
from sidecar.edge.peer.passed_on import ROUTER_FIELDS
from sidecar.schema import admin_pb2, peer_pb2, schedule_pb2
from sidecar.schema import taskhub_pb2 as pb
from tests.edge.test_corpus import MESSAGES, kinds, served
from tests.fuzz import mutate, seeds
from tests.fuzz.seeds import INSTANCES, made
from tests.fuzz.story import KINDS, MOST_STEPS, Step, named, place_of, read, written

ADMIN = {
    "ListWaiting": admin_pb2.ListWaitingRequest,
    "Retry": admin_pb2.RetryRequest,
    "FailCall": admin_pb2.FailCallRequest,
    "GetTree": admin_pb2.GetTreeRequest,
    "ApplySchedules": admin_pb2.ApplySchedulesRequest,
    "ListSchedules": admin_pb2.ListSchedulesRequest,
    "GetSchedule": admin_pb2.GetScheduleRequest,
    "DeleteSchedule": admin_pb2.DeleteScheduleRequest,
    "PauseSchedule": admin_pb2.PauseScheduleRequest,
    "ResumeSchedule": admin_pb2.ResumeScheduleRequest,
    "TriggerSchedule": admin_pb2.TriggerScheduleRequest,
    "BackfillSchedule": admin_pb2.BackfillScheduleRequest,
}
SCHEDULES = ("s", "t")
# Of the workflow API beside the SDKs', whose calls become those of the service.
BESIDE = {path: kind for path, handler in Workflows({}).handlers().unary.items() for kind in kinds(handler)}
TURNS = ("CompleteOrchestratorTask", "CompleteWorkflowTask")
_BESIDE = {path.rpartition("/")[2]: kind for path, kind in BESIDE.items()}
_PAYLOADS = (pb.HistoryEvent, pb.ActivityRequest)
_MOST_KINDS = 16  # of messages between sidecars, and some that are none


@cache
def paths() -> list[str]:
    """The unary methods of the app port."""
    return sorted([*served(), *BESIDE, *(f"/sidecar.admin.AdminService/{name}" for name in ADMIN)])


def kind_of(name: str) -> Any:
    """The message of a method."""
    return pb.OrchestratorResponse if name in TURNS else {**MESSAGES, **ADMIN, **_BESIDE}[name]


def request(name: str, rng: random.Random) -> bytes:
    """Return a request to a method, about one of a few instances."""
    found = seeds.recorded().get(name)
    kind = kind_of(name)
    body: bytes = rng.choice(found) if found and rng.random() < 0.5 else made(kind, rng).SerializeToString()
    for where in ("instance_id", "source_instance_id"):
        if where in kind.DESCRIPTOR.fields_by_name and rng.random() < 0.8:
            body += kind(**{where: rng.choice(INSTANCES)}).SerializeToString()
    if "Schedule" in name and "id" in kind.DESCRIPTOR.fields_by_name and rng.random() < 0.8:
        body += kind(id=rng.choice(SCHEDULES)).SerializeToString()
    if name == "ApplySchedules" and rng.random() < 0.8:
        body = admin_pb2.ApplySchedulesRequest(schedules=[_schedule(rng)]).SerializeToString()
    if name in ROUTER_FIELDS and rng.random() < 0.1:
        body += mutate.field(ROUTER_FIELDS[name], pb.Router(target_app_id="ml").SerializeToString())
    return body


def _schedule(rng: random.Random) -> schedule_pb2.Schedule:
    """Return a schedule that may be, with a part of one that may not."""
    schedule = schedule_pb2.Schedule(id=rng.choice(SCHEDULES), workflow="flow", every=rng.choice((1, 60)) * 1_000_000)
    schedule.overlap = rng.choice(schedule_pb2.Overlap.values())
    if rng.random() < 0.3:
        schedule.MergeFrom(made(schedule_pb2.Schedule, rng))
    return schedule


def call(rng: random.Random, name: str = "") -> Step:
    path = SERVICE + name if name else rng.choice(paths())
    return Step("call", place_of(path), rng.randrange(32), request(path.rpartition("/")[2], rng))


def answer(rng: random.Random) -> Step:
    kind = rng.choice((0, 0, 0, 1, 2))
    name = (rng.choice(TURNS), "CompleteActivityTask", "CompleteEntityTask")[kind]
    return Step(rng.choice(("answer", "answer", "answer", "again")), kind, rng.randrange(8), request(name, rng))


def stream(rng: random.Random) -> Step:
    return Step("stream", 0, rng.randrange(8), request("GetWorkItems", rng))


def history(rng: random.Random) -> Step:
    return Step("history", 0, rng.randrange(8), request("StreamInstanceHistory", rng))


def pause(rng: random.Random) -> Step:
    return Step(rng.choice(("wait", "wait", "wait", "leave")), rng.randrange(5), rng.randrange(4))


def greeting(rng: random.Random) -> Step:
    hello = peer_pb2.Hello(protocol=1, namespace="default", app_id=rng.choice(("ml", "evil")), store_id="s")
    return Step("link", 0, 0, peer_pb2.Frame(hello=hello).SerializeToString())


def frame(rng: random.Random) -> Step:
    """Something that a peer says."""
    frame_ = made(peer_pb2.Frame, rng, 3)
    choice = rng.random()
    if choice < 0.5:
        batch = peer_pb2.Batch(sequence=rng.randrange(9), messages=[_message(rng) for _ in range(rng.randrange(1, 4))])
        frame_ = peer_pb2.Frame(batch=batch)
    elif choice < 0.9:
        name = rng.choice([*ROUTER_FIELDS, "GetTree"])
        asked = peer_pb2.Request(id=f"{rng.randrange(99):x}", method=name, body=request(name, rng))
        asked.milliseconds = rng.choice((0, 1, 1000, 2**64 - 1))
        frame_ = peer_pb2.Frame(request=asked)
    return Step("frame", rng.randrange(2), 0, frame_.SerializeToString())


def _message(rng: random.Random) -> peer_pb2.Message:
    message: peer_pb2.Message = made(peer_pb2.Message, rng, 2)
    message.kind = rng.randrange(_MOST_KINDS)
    if rng.random() < 0.9:
        message.target.CopyFrom(peer_pb2.Actor(namespace="default", app_id="orders", kind="workflow"))
        message.target.id = rng.choice(INSTANCES)
        message.payload = made(rng.choice(_PAYLOADS), rng).SerializeToString()
    return message


def reply(rng: random.Random) -> Step:
    kind: Any = rng.choice((peer_pb2.Response, peer_pb2.Answers))
    return Step("reply", 0, 0, made(kind, rng, 2).SerializeToString())


_OF_APP = (call, call, call, call, answer, answer, answer, answer, stream, history, pause)
_OF_PEER = (call, answer, frame, frame, frame, frame, greeting, reply, reply, pause)


def story(rng: random.Random, peers: bool) -> bytes:
    """Return a story: of an app's client and worker, or of a peer beside them."""
    steps = [stream(rng), call(rng, "StartInstance"), call(rng, "StartInstance")]
    steps += [greeting(rng)] if peers else []
    for _ in range(rng.randrange(5, 30)):
        steps.append(rng.choice(_OF_PEER if peers else _OF_APP)(rng))
    return written(steps)


def mutated(data: bytes, rng: random.Random, pool: list[bytes]) -> bytes:
    """Return a story with another order, with steps of another one, and with messages that are almost right."""
    steps = read(data)
    for _ in range(rng.choice((1, 2, 4, 8))):
        if not steps:
            return rng.choice(pool)
        at = rng.randrange(len(steps))
        choice = rng.random()
        if choice < 0.7:
            steps[at] = steps[at]._replace(body=mutate.message(steps[at].body, rng, _donors(steps[at])))
        elif choice < 0.75:
            steps[at] = steps[at]._replace(index=rng.randrange(1 << 16), extra=rng.randrange(256))
        elif choice < 0.78:
            steps[at] = steps[at]._replace(kind=rng.choice(KINDS))
        elif choice < 0.85:
            steps.insert(at, steps[rng.randrange(len(steps))])
        elif choice < 0.9:
            del steps[at]
        else:
            other = read(rng.choice(pool))
            steps[at:at] = other[rng.randrange(len(other)) :] if other else []
    return written(steps[:MOST_STEPS])


@cache
def bodies(name: str) -> list[bytes]:
    """Return what released SDKs have sent to a method, or one made request."""
    return (
        seeds.recorded().get(name) or [made(kind_of(name), random.Random(1)).SerializeToString()]
        if name not in ("Check", "Watch")
        else [b""]
    )


def _donors(step: Step) -> list[bytes]:
    if step.kind in ("answer", "again"):
        return bodies((TURNS[0], "CompleteActivityTask", "CompleteEntityTask")[step.index % 3])
    return bodies(named(paths(), step.index).rpartition("/")[2])
