"""The values that the core decides on and that the rest of the sidecar passes around.

Times are integers: microseconds since the Unix epoch, UTC. Events are encoded `taskhub.HistoryEvent` messages in
their neutral form; inputs, outputs and statuses are opaque text.
"""

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar.core.attempts import NONE, Crash, DeliveryAttempts
from sidecar.core.receipts import Delivered, Forgotten, Lost, Received
from sidecar.core.schedule_row import ScheduleStep

ACTOR_TYPE_PREFIX = "dapr.internal"
DEFAULT_HUB = "default"


class Status(enum.IntEnum):
    """Run-time status of an instance, with the numbers of the protocol."""

    RUNNING = 0
    COMPLETED = 1
    CONTINUED_AS_NEW = 2
    FAILED = 3
    CANCELED = 4
    TERMINATED = 5
    PENDING = 6
    SUSPENDED = 7
    STALLED = 8

    @property
    def terminal(self) -> bool:
        """Whether the execution has ended."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELED, Status.TERMINATED)


class Kind(enum.IntEnum):
    """What a reminder asks of its actor. The numbers are stored and cross the peer link: never renumber."""

    START = 1  # the scheduled start of an own instance
    TIMER = 2  # a timer of an own instance
    ACTIVITY = 3  # run an activity
    CREATE = 4  # create a child workflow
    RESULT = 5  # the answer to a call
    EVENT = 6  # an external event for a workflow; an operation, lock or unlock for an entity
    TERMINATE = 7  # end a child, with its children
    PURGE = 8  # remove a child, with what is below it: sent by older sidecars alone
    WITHDRAW = 9  # take back an activity that has not been handed out yet
    DETACHED = 10  # start a workflow that has no parent and answers nobody
    REWIND = 11  # the parent runs again: so must a child that has failed
    PAUSE = 12  # the parent was paused, or goes on: so does a child, with its children
    SCHEDULE = 13  # the next step of an own schedule


class Rewind(enum.IntEnum):
    """Whether a history was replaced. Stored: never renumber; 1 was used before."""

    NO = 0
    REPLAY = 2  # the history is new: a turn is due even if nothing has arrived


class CallKind(enum.IntEnum):
    """What an open call waits for. Stored: never renumber."""

    ACTIVITY = 1
    CHILD = 2
    TIMER = 3
    EVENT = 4  # an event that was sent; never answered, kept so that a replay does not send it again
    ENTITY = 5  # an operation of an entity; its name is the ID of the request
    LOCK = 6  # the locks of a critical section; its name is the ID of the section
    HELD = 7  # the locks of a critical section that were granted; never answered, kept until they are released
    WAIT = 8  # a wait for an event without a time-out; never answered, kept until the event has come


UNANSWERED = frozenset({CallKind.EVENT, CallKind.HELD, CallKind.WAIT})  # no reminder causes or answers them


class ActorId(NamedTuple):
    """Address of an actor: its app, what it is ("workflow", "activity" or "entity"), its hub and its ID there."""

    namespace: str
    app: str
    kind: str
    hub: str
    id: str

    @property
    def type(self) -> str:
        """Actor type as the proposal writes it, e.g. `dapr.internal.default.orders.workflow`."""
        return f"{ACTOR_TYPE_PREFIX}.{self.namespace}.{self.app}.{self.kind}"


class CallId(NamedTuple):
    """Identity of a call: task IDs repeat over retries and executions, this does not."""

    execution: str
    turn: int
    task: int


NO_CALL = CallId("", 0, 0)


class Position(NamedTuple):
    """Where an event stands in an instance's log. Index 0 of a turn is its start, 1 the start of an execution."""

    turn: int
    event_index: int


FIRST_ARRIVAL = 2
_FIRST = Position(1, FIRST_ARRIVAL)


class Row(NamedTuple):
    """One event of the log."""

    turn: int
    event_index: int
    event: bytes

    @property
    def position(self) -> Position:
        """Where the event stands."""
        return Position(self.turn, self.event_index)


class Parent(NamedTuple):
    """The call that created an instance, the name of its workflow, and the execution that has asked again since."""

    actor: ActorId
    call: CallId
    name: str = ""
    asked_by: str = ""  # the parent was rewound, and waits under this execution ID

    @property
    def asked(self) -> CallId:
        """The call that is to be answered. Commands of the parent name the one that created the instance."""
        return self.call._replace(execution=self.asked_by) if self.asked_by else self.call


class Child(NamedTuple):
    """A child workflow, and the call of its parent that created it: it takes commands of that call alone."""

    actor: ActorId
    call: CallId


class OpenCall(NamedTuple):
    """A call that has no answer yet. `reminder` is the reminder that causes it, 0 if there is none.

    Of a timer the name is that of the event whose wait it limits, "" if there is none.
    `entities` are the IDs of the entities whose locks it waits for or has, in the order in which they are locked.
    `task_execution` is what its worker calls the execution of an activity, over all attempts; "" if it does not.
    """

    call: CallId
    kind: CallKind
    name: str
    target: ActorId
    reminder: int
    entities: tuple[str, ...] = ()
    task_execution: str = ""


class Lock(NamedTuple):
    """Who has locked an entity: instance ID and execution ID of a workflow of this app, and its critical section."""

    owner: str
    execution: str
    section: str


@dataclass(frozen=True, slots=True)
class Reminder:
    """A durable message to an actor, due at a time.

    `id` is the order number: it grows with every reminder of this store and is never used again. `due` is a time.
    """

    id: int
    kind: Kind
    owner: int  # key of the instance that set it; 0: none of this app did
    target: ActorId
    source: ActorId
    call: CallId
    due: int
    name: str
    payload: bytes
    kept_until_result: bool = False  # it is not deleted at its delivery, but when its call is answered
    crashes: DeliveryAttempts = NONE


@dataclass(frozen=True, slots=True)
class Instance:
    """What is stored of a workflow instance, or of an entity, beside its log and payloads.

    `last_completed_turn` is the last turn whose completion was committed; events of later turns are the inbox.
    `began`: the start event is in the log (before a scheduled start it is not). `ready`: something of it can be
    handed to a worker. `revision` grows with each change. `origin` is the execution ID that it was created with,
    `execution` the present one: continue-as-new and rewind give another.
    The whole log of an `entity` is its inbox, its output is its state, and `lock` says who has locked it.
    """

    key: int
    hub: str
    id: str
    revision: int
    name: str
    version: str | None
    status: Status
    suspended: bool
    began: bool
    ready: bool
    created_at: int
    updated_at: int
    started_at: int | None
    completed_at: int | None
    scheduled_at: int | None
    origin: str
    execution: str
    last_completed_turn: int
    workflow_time: int
    custom_status: str | None
    failure: bytes | None
    tags: bytes
    parent: Parent | None
    detached: int = 0  # how many detached workflows it has started without giving an ID, over its whole life
    trace: bytes = b""  # the encoded trace context that this execution was started in
    rewind: Rewind = Rewind.NO
    stall: bytes | None = None  # why it is STALLED, an encoded `taskhub.ExecutionStalled`
    recorded: bytes = b""  # encoded `taskhub.WorkflowVersion`: the version and patches that its history was made with
    entity: bool = False
    lock: Lock | None = None
    lineage: bool = False  # the history of its callers is stored with it
    last_order: int = 0  # the order number of the last suspend or resume that its parent has sent
    crashes: DeliveryAttempts = NONE
    ended_by: int = -1  # the number of the action that ended it; -1: none of its worker did
    orchestration_trace: bytes = b""  # what a worker gave to trace this execution by, given back with each turn


@dataclass(frozen=True, slots=True)
class Changes:
    """What one step changes, committed as a whole or not at all.

    The commit is refused when the instance `key` is not at revision `expected` (0: it is new), when a reminder of
    `required` is gone, or the schedule at another revision. It is a duplicate when a message of `received` was accepted
    before, when `set` has an activity of another app that is stored here already or whose result is on its way home, or
    when the answer to a call of `unanswered` (namespace and app of the caller, and the call) is on its way there.
    `key` 0: no instance takes part. `instance` is the row to write; None with a key and `purged` removes the instance.
    `replaces` is the key of an instance at revision `replaced_at` that is removed in the same commit.
    """

    key: int = 0
    expected: int = 0
    instance: Instance | None = None
    purged: bool = False
    replaces: int = 0
    replaced_at: int = 0
    output: str | None = None
    no_output: bool = False  # the stored output is removed
    lineage: bytes = b""  # an encoded history of its callers, kept with the instance in place of the one before
    reopened: bool = False  # an instance that had ended runs again
    truncate: Position | None = None  # the log is cut from here on, before anything is appended
    removed: tuple[Position, ...] = ()  # single events of the log
    append: tuple[Row, ...] = ()
    opened: tuple[OpenCall, ...] = ()
    closed: tuple[int, ...] = ()  # task IDs of calls that are not open any more
    close_all: bool = False  # all calls that were open before are closed
    children: tuple[Child, ...] = ()
    ended: tuple[CallId, ...] = ()  # the calls whose children have ended
    forgets_before: int = 0  # children that have ended and were called in a turn before this one are known no more
    set: tuple[Reminder, ...] = ()
    dropped: tuple[int, ...] = ()  # reminders that are deleted
    released: tuple[int, ...] = ()  # reminders that are not kept until their result: deleted once delivered
    required: tuple[int, ...] = ()
    received: tuple[Received, ...] = ()
    unanswered: tuple[tuple[str, str, CallId], ...] = ()
    delivered: tuple[Delivered, ...] = ()
    forgotten: tuple[Forgotten, ...] = ()
    lost: tuple[Lost, ...] = ()
    crashed: tuple[Crash, ...] = ()
    generation: str = ""  # the store goes on as another one, of this generation
    schedule: ScheduleStep | None = None
    continues: Instance | None = None  # the execution that ends in a continue-as-new; not stored, for those who watch


@dataclass(slots=True)
class State:
    """An instance with its open calls (by task ID), its children and its inbox. Only the engine changes it."""

    instance: Instance
    open: dict[int, OpenCall] = field(default_factory=dict)
    children: dict[CallId, Child] = field(default_factory=dict)  # those not known to have ended
    inbox: list[Row] = field(default_factory=list)
    tail: Position = _FIRST  # where the next arrival goes


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that a worker has: `rows` are the inbox up to turn `number`, in the order in which they are replayed.

    `started` is the encoded OrchestratorStarted event, `time` its timestamp.
    """

    key: int
    execution: str
    number: int
    token: str
    started: bytes
    time: int
    rows: tuple[Row, ...]

    @property
    def events(self) -> list[bytes]:
        """What is new in it for the worker."""
        return [self.started, *(row.event for row in self.rows)]


class Outcome(enum.Enum):
    """How a command ended; expected outcomes are results, not exceptions."""

    DONE = "done"
    DUPLICATE = "duplicate"
    STALE = "stale"
    MISSING = "missing"
    EXISTS = "exists"
    WRONG_STATE = "wrong state"
    DENIED = "denied"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"


class Reply(NamedTuple):
    """Outcome of a command, for whoever sent it."""

    outcome: Outcome
    text: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to commit (None: nothing) and what to reply once that is committed."""

    changes: Changes | None
    reply: Reply


DONE = Reply(Outcome.DONE)
