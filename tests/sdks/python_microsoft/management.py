"""Scenarios over many workflows, over their past, and over entities."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import grpc
import workflows
from basics import Basics
from durabletask import history
from durabletask.client import EntityQuery, OrchestrationQuery, OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.worker import VersionFailureStrategy, VersioningOptions, VersionMatchStrategy
from player import NotOffered, Scenario, holds, new_id, raises, same, until

COMPLETED, FAILED = OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED


class Rules(Protocol):
    """Gives the worker other version rules, or none; `filtered`: it asks only for what it has."""

    def __call__(self, rules: VersioningOptions | None, *, filtered: bool = False) -> None: ...


class Management:
    """The scenarios, with the client that they use."""

    def __init__(self, client: TaskHubGrpcClient, rules: Rules) -> None:
        self.client = client
        self.basics = Basics(client)
        self._rules = rules

    def scenarios(self) -> dict[str, Scenario]:
        return {
            "query": self.query,
            "list-ids": self.list_ids,
            "purge-by-filter": self.purge_by_filter,
            "history": self.history,
            "restart": self.restart,
            "rewind": self.rewind,
            "rerun": lambda: _not_offered("this SDK has rewind and restart, and no rerun from an event"),
            "scheduled-start": self.scheduled_start,
            "tags": self.tags,
            "version": self.version,
            "entity": self.entity,
            "entity-query": self.entity_query,
            "detached": self.detached,
            "patch": lambda: _not_offered("this SDK has no patching"),
            "execution-id": lambda: _not_offered("activities have no execution ID"),
            "remote-client": lambda: _not_offered("this client cannot name an app"),
            "restart-running": self.restart_running,
            "strict-version": self.strict_version,
            "long-history": lambda: _not_offered("this SDK takes no history above 4 MiB"),
        }

    def query(self) -> None:
        before = _now()
        done = [self._hello(f"query-{number}") for number in range(3)]
        running = self.basics.start(workflows.waiter, "go", "query-running")
        self.basics.until_running(running)
        prefix = new_id("query-")
        same(self._found(instance_id_prefix=prefix), {*done, running}, "by prefix")
        same(self._found(instance_id_prefix=prefix, runtime_status=[COMPLETED]), set(done), "by prefix and status")
        both = [OrchestrationStatus.RUNNING, OrchestrationStatus.SUSPENDED]
        same(self._found(instance_id_prefix=prefix, runtime_status=both), {running}, "by two statuses")
        same(self._found(instance_id_prefix=prefix, created_time_from=before), {*done, running}, "created since")
        same(self._found(instance_id_prefix=prefix, created_time_to=before), set(), "created before")
        same(self._found(instance_id_prefix=prefix, max_instance_count=2), {*done, running}, "in pages of two")
        same(self._found(instance_id_prefix=prefix + "%"), set(), "by a prefix that is no pattern")
        for payloads, wanted in ((True, '"Tokyo"'), (False, None)):
            query = OrchestrationQuery(instance_id_prefix=done[0], fetch_inputs_and_outputs=payloads)
            [state] = self.client.get_all_orchestration_states(query)
            same((state.name, state.runtime_status), ("hello", COMPLETED), "name and status")
            same(state.serialized_input, wanted, f"input, asked for: {payloads}")
        self.client.terminate_orchestration(running)

    def list_ids(self) -> None:
        before = _now()
        done = [self._hello(f"list-{number}") for number in range(3)]
        failed = self.basics.start(workflows.fails, "so", "list-failed")
        self.basics.ended(failed, FAILED)
        running = self.basics.start(workflows.waiter, "go", "list-running")
        self.basics.until_running(running)
        same(self._listed(2, completed_time_from=before), [*done, failed], "all that have ended, in their order")
        same(self._listed(2, completed_time_from=before, runtime_status=[FAILED]), [failed], "those that failed")
        same(self._listed(100, completed_time_from=before, completed_time_to=before), [], "an empty range")
        self.client.terminate_orchestration(running)

    def purge_by_filter(self) -> None:
        kept = self._hello("filter-kept")
        time.sleep(0.01)
        begin = _now()
        done = [self._hello(f"filter-{number}") for number in range(2)]
        failed = self.basics.start(workflows.fails, "so", "filter-failed")
        self.basics.ended(failed, FAILED)
        running = self.basics.start(workflows.waiter, "go", "filter-running")
        self.basics.until_running(running)
        end = _now() + timedelta(seconds=1)
        result = self.client.purge_orchestrations_by(begin, end, [COMPLETED])
        same(result.deleted_instance_count, 2, "completed instances purged")
        result = self.client.purge_orchestrations_by(begin, end, timeout=timedelta(seconds=10))
        same(result.deleted_instance_count, 1, "instances purged that have ended in whatever way")
        gone = [id_ for id_ in (*done, failed) if self.client.get_orchestration_state(id_) is None]
        same(gone, [*done, failed], "what is gone")
        same(self.basics.status(running), OrchestrationStatus.RUNNING, "what runs")
        same(self.basics.status(kept), COMPLETED, "what was created before")
        self.client.terminate_orchestration(running)

    def history(self) -> None:
        id_ = self._hello("history")
        events = self.client.get_orchestration_history(id_)
        [started] = [event for event in events if isinstance(event, history.ExecutionStartedEvent)]
        same((started.name, started.input), ("hello", '"Tokyo"'), "the start")
        [scheduled] = [event for event in events if isinstance(event, history.TaskScheduledEvent)]
        same((scheduled.name, scheduled.input), ("say_hello", '"Tokyo"'), "the activity")
        [completed] = [event for event in events if isinstance(event, history.TaskCompletedEvent)]
        same(completed.task_scheduled_id, scheduled.event_id, "what was completed")
        same(completed.result, '"Hello, Tokyo!"', "the activity's result")
        [ended] = [event for event in events if isinstance(event, history.ExecutionCompletedEvent)]
        same((ended.orchestration_status, ended.result), (COMPLETED.value, '"Hello, Tokyo!"'), "the end")
        places = [events.index(event) for event in (started, scheduled, completed, ended)]
        same(places, sorted(places), "the order")
        with raises(grpc.RpcError, "the history of nobody") as caught:
            self.client.get_orchestration_history(new_id("nobody"))
        same(caught[0].code(), grpc.StatusCode.NOT_FOUND, "code of that")

    def restart(self) -> None:
        first = self._hello("restart")
        created = self.basics.get(first).created_at
        second = self.client.restart_orchestration(first, restart_with_new_instance_id=True)
        holds(second and second != first, f"the new ID is '{second}'")
        same(self.basics.ended(second).get_output(), "Hello, Tokyo!", "output under a new ID")
        same(self.basics.get(first).created_at, created, "the first one's time, untouched")
        same(self.client.restart_orchestration(first), first, "the ID of a restart under its own")
        until(lambda: self.basics.get(first).created_at > created, "it is created anew")
        same(self.basics.ended(first).get_output(), "Hello, Tokyo!", "output under its own ID")
        running = self.basics.start(workflows.waiter, "go", "restart-running")
        self.basics.until_running(running)
        self._refused("restart", self.client.restart_orchestration, running)
        self.client.terminate_orchestration(running)

    def restart_running(self) -> None:
        first = self.basics.start(workflows.waiter, "go", "restart-runs")
        self.basics.until_running(first)
        second = self.client.restart_orchestration(first, restart_with_new_instance_id=True)
        holds(second and second != first, f"the new ID is '{second}'")
        self.basics.until_running(second)
        for number, id_ in enumerate((first, second)):
            same(self.basics.status(id_), OrchestrationStatus.RUNNING, f"status of {id_}")
            self.client.raise_orchestration_event(id_, "go", data=number)
            same(self.basics.ended(id_).get_output(), number, f"output of {id_}")

    def rewind(self) -> None:
        id_ = new_id("rewind")
        names = [f"{id_}-sound", f"{id_}-shaky", f"{id_}-below"]
        workflows.broken.update(names[1:])
        self.basics.start(workflows.shaky, id_, "rewind")
        self.basics.ended(id_, FAILED)
        same([workflows.attempts[name] for name in names], [1, 1, 1], "runs before")
        workflows.broken.clear()
        self.client.rewind_orchestration(id_, reason="repaired")
        until(lambda: self.basics.status(id_) is COMPLETED, "it completes")
        same(self.basics.get(id_).get_output(), names, "output")
        same([workflows.attempts[name] for name in names], [1, 2, 2], "runs afterwards")
        same(self.basics.status(f"{id_}-child"), COMPLETED, "the child")
        self._refused("rewind", self.client.rewind_orchestration, id_)

    def scheduled_start(self) -> None:
        begin = time.time()
        start_at = datetime.fromtimestamp(begin + 1.5, UTC)
        id_ = self.basics.start(workflows.started_at, None, "scheduled", start_at=start_at)
        same(self.basics.status(id_), OrchestrationStatus.PENDING, "status at once")
        time.sleep(0.7)
        same(self.basics.status(id_), OrchestrationStatus.PENDING, "status after 0.7 s")
        same(self.client.wait_for_orchestration_start(id_, timeout=10).instance_id, id_, "the one that has started")
        waited = self.basics.ended(id_).get_output() - begin
        holds(1.5 <= waited < 10, f"it started after {waited:.2f} s")

    def tags(self) -> str:
        id_ = self.basics.start(workflows.tagged, None, "tags", tags={"team": "blue", "größe": "L"})
        self.basics.ended(id_)
        events = self.client.get_orchestration_history(id_)
        [started] = [event for event in events if isinstance(event, history.ExecutionStartedEvent)]
        same(started.tags, {"team": "blue", "größe": "L"}, "tags of the start, in the history")
        [scheduled] = [event for event in events if isinstance(event, history.TaskScheduledEvent)]
        same(scheduled.tags, {"step": "only"}, "tags of the activity, in the history")
        return "seen in the history; this client's state and contexts have none"

    def version(self) -> None:
        same(self.basics.output(workflows.versioned, False, "version-none"), None, "no version")
        same(self.basics.output(workflows.versioned, False, "version-1", version="1.0"), "1.0", "the version")
        try:
            self._rules(_rules(VersionMatchStrategy.STRICT, VersionFailureStrategy.FAIL))
            same(self.basics.output(workflows.versioned, True, "v-equal", version="2.0"), ["2.0", "2.0"], "its child's")
            self._mismatch("v-strict", "1.0")
            self._rules(_rules(VersionMatchStrategy.CURRENT_OR_OLDER, VersionFailureStrategy.FAIL))
            same(self.basics.output(workflows.versioned, False, "v-older", version="1.5"), "1.5", "an older version")
            self._mismatch("v-newer", "3.0")
            self._rules(_rules(VersionMatchStrategy.STRICT, VersionFailureStrategy.REJECT))
            rejected = self.basics.start(workflows.versioned, False, "v-rejected", version="1.0")
            time.sleep(1)
            status = self.basics.status(rejected)
            holds(status in (OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING), f"rejected, and yet {status}")
        finally:
            self._rules(None)
        same(self.basics.ended(rejected).get_output(), "1.0", "what one worker rejected and another took")

    def strict_version(self) -> None:
        """A worker of one version that asks only for what it has: activities have no version, and come all the same."""
        try:
            self._rules(_strict("2.0"), filtered=True)
            same(self.basics.output(workflows.hello, "2.0", "strict-2", version="2.0"), "Hello, 2.0!", "its version")
            other = self.basics.start(workflows.hello, "1.0", "strict-1", version="1.0")
            time.sleep(1)
            status = self.basics.status(other)
            holds(status in (OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING), f"another version is {status}")
            self._rules(_strict("1.0"), filtered=True)
            same(self.basics.ended(other).get_output(), "Hello, 1.0!", "the other, with a worker for it")
        finally:
            self._rules(None)

    def entity(self) -> None:
        one, two = EntityInstanceId("counter", new_id("one")), EntityInstanceId("counter", new_id("two"))
        same(self.client.get_entity(one), None, "an entity that does not exist")
        self.client.signal_entity(one, "add", 100)
        until(lambda: self._state(one) == 100, "the signal has come")
        self.client.signal_entity(one, "add", 1, signal_time=_now() + timedelta(seconds=1))
        time.sleep(0.4)
        same(self._state(one), 100, "before the time of a signal that is to come later")
        until(lambda: self._state(one) == 101, "the later signal has come")
        same(self.basics.output(workflows.use_counter, two.key, "entity-use"), [15, 15, True], "what a workflow saw")
        call = {"from": one.key, "to": two.key, "amount": 100}
        same(self.basics.output(workflows.transfer, call, "entity-transfer"), True, "a transfer")
        same((self._state(one), self._state(two)), (1, 115), "both after it")
        same(self.basics.output(workflows.transfer, call, "entity-refused"), False, "a transfer of too much")
        self.client.signal_entity(one, "add", 1)
        until(lambda: self._state(one) == 2, "the locks are gone")
        metadata = self.client.get_entity(one, include_state=False)
        same((metadata.id, metadata.includes_state, metadata.get_locked_by()), (one, False, None), "metadata")
        self.client.signal_entity(one, "delete")
        until(lambda: not self._raw(one), "its state is gone")

    def entity_query(self) -> None:
        ids = [EntityInstanceId("counter", new_id(f"many-{number}")) for number in range(3)]
        for id_ in ids:
            self.client.signal_entity(id_, "add", 7)
        until(lambda: all(self._state(id_) == 7 for id_ in ids), "all are there")
        prefix = f"@counter@{new_id('many-')}"
        for state in (True, False):
            query = EntityQuery(instance_id_starts_with=prefix, include_state=state, page_size=2)
            found = self.client.get_all_entities(query)
            same(sorted(str(each.id) for each in found), [str(id_) for id_ in ids], "by prefix, in pages of two")
            same([each.get_typed_state(int) for each in found], [7 if state else None] * 3, "states")
        late = EntityQuery(instance_id_starts_with=prefix, last_modified_from=_now() + timedelta(minutes=1))
        same(self.client.get_all_entities(late), [], "modified in the future")
        self.client.signal_entity(ids[0], "delete")
        until(lambda: not self._raw(ids[0]), "one is empty")
        # Not how many there were: an empty entity may have gone by itself.
        self.client.clean_entity_storage()
        left = self.client.get_all_entities(EntityQuery(instance_id_starts_with=prefix))
        same(sorted(str(each.id) for each in left), [str(id_) for id_ in ids[1:]], "after cleaning")
        orchestrations = self.client.get_all_orchestration_states(OrchestrationQuery())
        same([state.instance_id for state in orchestrations if state.instance_id.startswith("@")], [], "entities among")

    def detached(self) -> str:
        one, two = EntityInstanceId("counter", new_id("tells")), EntityInstanceId("counter", new_id("told"))
        started = new_id("detached")
        self.client.signal_entity(one, "tell", {"other": two.key, "number": 4, "start": started})
        until(lambda: self.client.get_orchestration_state(started), "it has been started")
        same(self.basics.ended(started).get_output(), "Hello, Kyoto!", "output of the one that was started")
        until(lambda: self._state(two) == 4, "the other entity got its signal")
        return "from an entity; an orchestrator cannot"

    # ------------------------------------------------------------ helpers

    def _hello(self, name: str) -> str:
        id_ = self.basics.start(workflows.hello, "Tokyo", name)
        self.basics.ended(id_)
        return id_

    def _found(self, **query: Any) -> set[str]:
        states = self.client.get_all_orchestration_states(OrchestrationQuery(**query))
        ids = [state.instance_id for state in states]
        same(len(ids), len(set(ids)), "instances that are found twice")
        return set(ids)

    def _listed(self, page_size: int, **query: Any) -> list[str]:
        """IDs of this run: another scenario may have left something that ends only now."""
        ids, token = [], None
        while True:
            page = self.client.list_instance_ids(page_size=page_size, continuation_token=token, **query)
            holds(len(page.items) <= page_size, "a page has more than was asked for")
            ids += page.items
            token = page.continuation_token
            if not token:
                return [id_ for id_ in ids if id_.startswith(new_id("list-"))]

    def _refused(self, name: str, call: Callable[[str], object], wrong_state: str) -> None:
        for id_, code in (
            (new_id("nobody"), grpc.StatusCode.NOT_FOUND),
            (wrong_state, grpc.StatusCode.FAILED_PRECONDITION),
        ):
            with raises(grpc.RpcError, f"{name} of {id_}") as caught:
                call(id_)
            same(caught[0].code(), code, f"code of {name} of {id_}")

    def _mismatch(self, name: str, version: str) -> None:
        state = self.basics.ended(self.basics.start(workflows.versioned, False, name, version=version), FAILED)
        same(state.failure_details.error_type, "VersionMismatch", f"failure of {version}")

    def _raw(self, id_: EntityInstanceId) -> Any:
        metadata = self.client.get_entity(id_)
        return metadata and metadata.get_state()

    def _state(self, id_: EntityInstanceId) -> int | None:
        return self.client.get_entity(id_).get_typed_state(int) if self._raw(id_) else None


def _rules(match: VersionMatchStrategy, failure: VersionFailureStrategy) -> VersioningOptions:
    return VersioningOptions("2.0", default_version="2.0", match_strategy=match, failure_strategy=failure)


def _strict(version: str) -> VersioningOptions:
    match, failure = VersionMatchStrategy.STRICT, VersionFailureStrategy.REJECT
    return VersioningOptions(version, match_strategy=match, failure_strategy=failure)


def _not_offered(reason: str) -> None:
    raise NotOffered(reason)


def _now() -> datetime:
    return datetime.now(UTC)
