// The scenarios of tests/sdks/README.md with Microsoft's Durable Task SDK for JavaScript.

import { setTimeout as sleep } from "node:timers/promises";
import { status as grpcStatus } from "@grpc/grpc-js";
import {
  EntityInstanceId,
  HistoryEventType,
  OrchestrationStatus,
  PurgeInstanceCriteria,
  RetryPolicy,
  TaskEntity,
  TaskHubGrpcClient,
  TaskHubGrpcWorker,
  terminateOptions,
  VersionFailureStrategy,
  VersionMatchStrategy,
  whenAll,
  whenAny,
} from "@microsoft/durabletask-js";
import { check, early, equal, eventually, failing, INPUTS, LINGER, main, newId, notOffered, SHOWN, until } from "./stage.mjs";

const { COMPLETED, FAILED, PENDING, RUNNING, SUSPENDED, TERMINATED } = OrchestrationStatus;
const hostAddress = `${process.env.SIDECAR_HOST}:${process.env.SIDECAR_PORT}`;

let client;
let worker;

const scenarios = {};
const orchestrators = [];
const activities = [];

/** Schedules an orchestration and returns its ID. */
const schedule = (orchestrator, input, options = {}) =>
  client.scheduleNewOrchestration(orchestrator, input, { instanceId: newId(orchestrator.name), ...options });

/** The output of an orchestration that must complete. */
async function outputOf(id) {
  const state = await client.waitForOrchestrationCompletion(id, true, 25);
  state.raiseIfFailed();
  equal(state.runtimeStatus, COMPLETED, "status");
  return JSON.parse(state.serializedOutput);
}

const statusOf = async (id) => (await client.getOrchestrationState(id)).runtimeStatus;
const reaches = (id, status) =>
  until(() => statusOf(id), (now) => now === status, `status ${OrchestrationStatus[status]}`);

// --- hello -----------------------------------------------------------------------------------------------------------

activities.push(greet);
function greet(_, name) {
  return `Hello, ${name}!`;
}

orchestrators.push(hello);
async function* hello(ctx, name) {
  return yield ctx.callActivity(greet, name);
}

scenarios.hello = async () => {
  const before = Date.now();
  const id = await schedule(hello, "Tokyo");
  const state = await client.waitForOrchestrationCompletion(id);
  equal(state.runtimeStatus, COMPLETED, "status");
  equal([state.instanceId, state.name], [id, "hello"], "instance");
  equal([state.serializedInput, state.serializedOutput], ['"Tokyo"', '"Hello, Tokyo!"'], "payloads");
  check(state.createdAt >= before - 1000 && state.createdAt <= Date.now() + 1000, "created now");
  check(state.lastUpdatedAt >= state.createdAt, "updated after it was created");
};

// --- chain, fan-out --------------------------------------------------------------------------------------------------

activities.push(addOne, square);
function addOne(_, number) {
  return number + 1;
}
function square(_, number) {
  return number * number;
}

orchestrators.push(chain, fanOut);
async function* chain(ctx, start) {
  const second = yield ctx.callActivity(addOne, start);
  const third = yield ctx.callActivity(addOne, second);
  return yield ctx.callActivity(addOne, third);
}
async function* fanOut(ctx, count) {
  const tasks = [];
  for (let i = 0; i < count; i++) tasks.push(ctx.callActivity(square, i));
  const squares = yield whenAll(tasks);
  return squares.reduce((sum, value) => sum + value, 0);
}

scenarios.chain = async () => equal(await outputOf(await schedule(chain, 1)), 4, "output");
scenarios["fan-out"] = async () => equal(await outputOf(await schedule(fanOut, 50)), 40425, "output");

// --- fan-in ----------------------------------------------------------------------------------------------------------

activities.push(fill);
function fill(_, length) {
  return "x".repeat(length);
}

orchestrators.push(fanIn);
async function* fanIn(ctx, length) {
  const tasks = Array.from({ length: 60 }, () => ctx.callActivity(fill, length));
  const texts = yield whenAll(tasks);
  return texts.reduce((sum, text) => sum + text.length, 0);
}

scenarios["fan-in"] = async () => equal(await outputOf(await schedule(fanIn, 150_000)), 9_000_000, "characters");

// --- retry -----------------------------------------------------------------------------------------------------------

const attempts = new Map();

activities.push(shaky);
function shaky(ctx, failures) {
  const attempt = (attempts.get(ctx.orchestrationId) ?? 0) + 1;
  attempts.set(ctx.orchestrationId, attempt);
  if (attempt <= failures) throw new Error(`attempt ${attempt}`);
  return attempt;
}

orchestrators.push(retry);
async function* retry(ctx, failures) {
  const policy = new RetryPolicy({ maxNumberOfAttempts: 3, firstRetryIntervalInMilliseconds: 100 });
  return yield ctx.callActivity(shaky, failures, { retry: policy });
}

scenarios.retry = async () => {
  equal(await outputOf(await schedule(retry, 2)), 3, "attempt that succeeded");
  const tooOften = await client.waitForOrchestrationCompletion(await schedule(retry, 9), true, 20);
  equal([tooOften.runtimeStatus, attempts.get(tooOften.instanceId)], [FAILED, 3], "after three failures");
};

// --- timer -----------------------------------------------------------------------------------------------------------

orchestrators.push(timer);
async function* timer(ctx, seconds) {
  const start = ctx.currentUtcDateTime;
  yield ctx.createTimer(seconds);
  return ctx.currentUtcDateTime - start;
}

scenarios.timer = async () => {
  const start = Date.now();
  const moved = await outputOf(await schedule(timer, 1));
  check(Date.now() - start >= 1000, `the timer fired after ${Date.now() - start} ms`);
  check(moved >= 1000, `the orchestration's clock moved by ${moved} ms`);
};

// --- event -----------------------------------------------------------------------------------------------------------

orchestrators.push(event);
async function* event(ctx) {
  const approval = yield ctx.waitForExternalEvent("approval");
  const second = ctx.waitForExternalEvent("never");
  const timeout = ctx.createTimer(0.3);
  const winner = yield whenAny([second, timeout]);
  return { approval, timedOut: winner === timeout };
}

scenarios.event = async () => {
  const id = await schedule(event);
  await client.waitForOrchestrationStart(id);
  await client.raiseOrchestrationEvent(id, "approval", { by: "Zoë", amount: 7 });
  equal(await outputOf(id), { approval: { by: "Zoë", amount: 7 }, timedOut: true }, "output");
};

// --- child -----------------------------------------------------------------------------------------------------------

orchestrators.push(parent, child);
async function* parent(ctx, childId) {
  const named = ctx.callSubOrchestrator(child, 1, { instanceId: childId });
  const unnamed = ctx.callSubOrchestrator(child, 2);
  return yield whenAll([named, unnamed]);
}
async function* child(ctx, number) {
  const result = yield ctx.callActivity(addOne, number);
  return { id: ctx.instanceId, parent: ctx.parent.instanceId, result };
}

scenarios.child = async () => {
  const childId = newId("named-child");
  const id = await schedule(parent, childId);
  const [named, unnamed] = await outputOf(id);
  equal(named, { id: childId, parent: id, result: 2 }, "the named child");
  equal([unnamed.parent, unnamed.result], [id, 3], "the unnamed child");
  equal(await statusOf(childId), COMPLETED, "status of the named child");
  equal(await statusOf(unnamed.id), COMPLETED, "status of the unnamed child");
};

// --- continue-as-new -------------------------------------------------------------------------------------------------

orchestrators.push(counting);
async function* counting(ctx, count) {
  if (count === 1) yield ctx.waitForExternalEvent("go");
  if (count < 5) return ctx.continueAsNew(count + 1, true);
  const kept = yield ctx.waitForExternalEvent("kept");
  return { count, kept };
}

scenarios["continue-as-new"] = async () => {
  const id = await schedule(counting, 1);
  await client.raiseOrchestrationEvent(id, "kept", "since the first execution");
  await client.raiseOrchestrationEvent(id, "go");
  equal(await outputOf(id), { count: 5, kept: "since the first execution" }, "output");
};

// --- suspend-resume, terminate, purge --------------------------------------------------------------------------------

orchestrators.push(waiting, waitingParent);
async function* waiting(ctx) {
  return yield ctx.waitForExternalEvent("end");
}
async function* waitingParent(ctx, childId) {
  return yield ctx.callSubOrchestrator(waiting, undefined, { instanceId: childId });
}

scenarios["suspend-resume"] = async () => {
  const id = await schedule(waiting);
  await client.waitForOrchestrationStart(id);
  await client.suspendOrchestration(id);
  await reaches(id, SUSPENDED);
  await client.raiseOrchestrationEvent(id, "end", "later");
  await sleep(500);
  equal(await statusOf(id), SUSPENDED, "status after an event");
  await client.resumeOrchestration(id);
  equal(await outputOf(id), "later", "output");
};

scenarios.terminate = async () => {
  const childId = newId("ended-child");
  const id = await schedule(waitingParent, childId);
  const childState = () => client.getOrchestrationState(childId);
  await until(childState, (state) => state?.runtimeStatus === RUNNING, "the child runs");
  await client.terminateOrchestration(id, terminateOptions({ output: { reason: "enough" }, recursive: true }));
  const state = await client.waitForOrchestrationCompletion(id);
  equal([state.runtimeStatus, state.serializedOutput], [TERMINATED, '{"reason":"enough"}'], "the parent");
  equal((await client.waitForOrchestrationCompletion(childId)).runtimeStatus, TERMINATED, "status of the child");
};

scenarios.purge = async () => {
  const id = await schedule(hello, "purge");
  await outputOf(id);
  equal((await client.purgeOrchestration(id)).deletedInstanceCount, 1, "purged");
  equal(await client.getOrchestrationState(id), undefined, "state after the purge");
  equal((await client.purgeOrchestration(id)).deletedInstanceCount, 0, "purged again");

  const childId = newId("purged-child");
  const family = await schedule(parent, childId);
  await outputOf(family);
  equal((await client.purgeOrchestration(family, { recursive: true })).deletedInstanceCount, 3, "purged with children");
  equal(await client.getOrchestrationState(childId), undefined, "state of the child after the purge");
};

// --- failure-details -------------------------------------------------------------------------------------------------

class CardDeclined extends Error {
  name = "CardDeclined";
}

activities.push(declining);
function declining(_, card) {
  throw new CardDeclined(`no money on ${card}`);
}

orchestrators.push(paying, payingCarefully);
async function* paying(ctx, card) {
  return yield ctx.callActivity(declining, card);
}
async function* payingCarefully(ctx, card) {
  try {
    yield ctx.callActivity(declining, card);
  } catch (error) {
    return { type: error.details.errorType, message: error.details.message };
  }
}

scenarios["failure-details"] = async () => {
  const seen = await outputOf(await schedule(payingCarefully, "4711"));
  equal(seen, { type: "CardDeclined", message: "no money on 4711" }, "what the orchestration sees");
  const state = await client.waitForOrchestrationCompletion(await schedule(paying, "4711"));
  equal(state.runtimeStatus, FAILED, "status");
  equal(state.failureDetails.errorType, "TaskFailedError", "type that the client sees");
  check(state.failureDetails.message.includes("no money on 4711"), `message: ${state.failureDetails.message}`);
};

// --- custom-status ---------------------------------------------------------------------------------------------------

orchestrators.push(reporting);
async function* reporting(ctx) {
  ctx.setCustomStatus({ done: "half" });
  yield ctx.waitForExternalEvent("on");
  ctx.setCustomStatus({ done: "all" });
}

scenarios["custom-status"] = async () => {
  const id = await schedule(reporting);
  const customStatus = async () => (await client.getOrchestrationState(id)).serializedCustomStatus;
  await until(customStatus, (now) => now === '{"done":"half"}', "half done");
  equal(await statusOf(id), RUNNING, "status while half done");
  await client.raiseOrchestrationEvent(id, "on");
  const state = await client.waitForOrchestrationCompletion(id);
  equal([state.runtimeStatus, state.serializedCustomStatus], [COMPLETED, '{"done":"all"}'], "at the end");
};

// --- clear-status ----------------------------------------------------------------------------------------------------

orchestrators.push(clearing);
/** Has a status, clears it, has one again, and goes on as a new execution without. */
async function* clearing(ctx, round) {
  if (round === 2) return yield ctx.waitForExternalEvent("end");
  ctx.setCustomStatus("busy");
  yield ctx.waitForExternalEvent("clear");
  ctx.setCustomStatus("");
  yield ctx.waitForExternalEvent("again");
  ctx.setCustomStatus("busy again");
  yield ctx.waitForExternalEvent("continue");
  ctx.continueAsNew(2, false);
}

scenarios["clear-status"] = async () => {
  const id = await schedule(clearing, 1);
  const customStatus = async () => JSON.parse((await client.getOrchestrationState(id)).serializedCustomStatus || '""');
  for (const [status, event] of [["busy", "clear"], ["", "again"], ["busy again", "continue"], ["", "end"]]) {
    await until(customStatus, (now) => now === status, `status ${status}`);
    await client.raiseOrchestrationEvent(id, event, true);
  }
  equal(await outputOf(id), true, "output");
  return "by an empty text: a status that is undefined is not sent";
};

// --- payload ---------------------------------------------------------------------------------------------------------

activities.push(echo);
function echo(_, value) {
  return value;
}

orchestrators.push(echoing);
async function* echoing(ctx, value) {
  return yield ctx.callActivity(echo, value);
}

scenarios.payload = async () => {
  const unit = "Grüße 世界 🙂\n"; // 22 bytes
  const text = unit.repeat(Math.ceil((1 << 20) / Buffer.byteLength(unit)));
  const id = await schedule(echoing, text);
  check((await outputOf(id)) === text, "the output is the input");
  check(JSON.parse((await client.getOrchestrationState(id)).serializedInput) === text, "the input is kept");
};

// --- other apps ------------------------------------------------------------------------------------------------------

// No call of this SDK names an app: names that begin with "routed" go to the other one by a route of the sidecar.
const BY_ROUTE = "by a route of the sidecar: no call names an app";

activities.push(where, routedWhere);
function where() {
  return process.env.APP_ID;
}
function routedWhere() {
  return process.env.APP_ID;
}

orchestrators.push(remoteActivity, remoteChild, routedChild);
async function* remoteActivity(ctx) {
  return yield whenAll([ctx.callActivity(where), ctx.callActivity(routedWhere)]);
}
async function* remoteChild(ctx, instanceId) {
  return yield ctx.callSubOrchestrator(routedChild, "visit", { instanceId });
}
async function* routedChild(ctx, text) {
  return [text, ctx.instanceId, yield ctx.callActivity(where)];
}

scenarios["remote-activity"] = async () => {
  const output = await outputOf(await schedule(remoteActivity));
  equal(output, [process.env.APP_ID, process.env.OTHER_APP], "where the activities ran");
  return BY_ROUTE;
};

scenarios["remote-child"] = async () => {
  const childId = newId("remote-child");
  equal(await outputOf(await schedule(remoteChild, childId)), ["visit", childId, process.env.OTHER_APP], "output");
  equal(await client.getOrchestrationState(childId), undefined, "the child, looked for here");
  return BY_ROUTE;
};

// --- inputs ----------------------------------------------------------------------------------------------------------

activities.push(Show);
function Show(_, input) {
  return JSON.stringify(input ?? null);
}

orchestrators.push(inputs);
/** Gives an activity there each kind of input, and at last none. */
async function* inputs(ctx) {
  const there = { tags: { "app-id": process.env.OTHER_APP } };
  const shown = [];
  for (const input of INPUTS) shown.push(yield ctx.callActivity(Show, input, there));
  shown.push(yield ctx.callActivity(Show, undefined, there));
  return shown;
}

scenarios.inputs = async () => equal(await outputOf(await schedule(inputs)), SHOWN, "what it was given");

// --- reuse, missing --------------------------------------------------------------------------------------------------

scenarios.reuse = async () => {
  const instanceId = await schedule(waiting);
  await client.waitForOrchestrationStart(instanceId);
  const error = await failing(() => schedule(waiting, undefined, { instanceId }), "a second start");
  equal(error.code, grpcStatus.ALREADY_EXISTS, "code");
  equal(await statusOf(instanceId), RUNNING, "status of the first");
  await client.terminateOrchestration(instanceId);
};

scenarios.missing = async () => {
  const id = newId("missing");
  equal(await client.getOrchestrationState(id), undefined, "get");
  for (const [what, call] of Object.entries({
    raise: () => client.raiseOrchestrationEvent(id, "event"),
    suspend: () => client.suspendOrchestration(id),
    resume: () => client.resumeOrchestration(id),
    terminate: () => client.terminateOrchestration(id),
  })) {
    equal((await failing(call, what)).code, grpcStatus.NOT_FOUND, `code of ${what}`);
  }
};

// --- early-wait, graceful-stop ---------------------------------------------------------------------------------------

scenarios["early-wait"] = async () => {
  const instanceId = newId("early");
  const state = await early(
    () => client.waitForOrchestrationCompletion(instanceId, true, 20),
    () => schedule(hello, "early", { instanceId }),
  );
  equal([state.runtimeStatus, state.serializedOutput], [COMPLETED, '"Hello, early!"'], "what the wait ended with");
};

activities.push(linger);
async function linger() {
  await sleep(LINGER);
  return "done";
}

orchestrators.push(lingering);
async function* lingering(ctx) {
  return yield ctx.callActivity(linger);
}

scenarios["graceful-stop"] = async () => {
  const id = await schedule(lingering);
  await eventually(() => client.getOrchestrationState(id), (state) => state?.serializedOutput === '"done"');
};

// --- long-history ----------------------------------------------------------------------------------------------------

orchestrators.push(filling);
/** Asks one after the other for 40 texts of 150,000 characters, and then waits for an event. */
async function* filling(ctx) {
  let sum = 0;
  for (let i = 0; i < 40; i++) sum += (yield ctx.callActivity(fill, 150_000)).length;
  ctx.setCustomStatus("filled");
  yield ctx.waitForExternalEvent("end");
  return sum;
}

scenarios["long-history"] = async () => {
  const id = await schedule(filling);
  const customStatus = async () => (await client.getOrchestrationState(id)).serializedCustomStatus;
  await until(customStatus, (now) => now === '"filled"', "its history is long", 25);
  await replaceWorker();
  await client.raiseOrchestrationEvent(id, "end", true);
  equal(await outputOf(id), 6_000_000, "characters");
};

// --- query, list-ids, purge-by-filter --------------------------------------------------------------------------------

/** Instances of `hello` that have ended and of `waiting` that have not, and the times around them. */
async function someInstances(what, completed, running) {
  await sleep(20);
  const from = new Date();
  const prefix = newId(what);
  const ended = [];
  for (let i = 0; i < completed; i++) ended.push(await schedule(hello, `${i}`, { instanceId: `${prefix}-ended-${i}` }));
  const open = [];
  for (let i = 0; i < running; i++) open.push(await schedule(waiting, i, { instanceId: `${prefix}-open-${i}` }));
  await Promise.all(ended.map(outputOf));
  await Promise.all(open.map((id) => client.waitForOrchestrationStart(id)));
  await sleep(20);
  const finish = () => Promise.all(open.map((id) => client.terminateOrchestration(id)));
  return { from, to: new Date(), prefix, ended, open, finish };
}

async function listed(pageable) {
  const states = [];
  for await (const state of pageable) states.push(state);
  return states.sort((one, other) => (one.instanceId < other.instanceId ? -1 : 1));
}

scenarios.query = async () => {
  const { from, to, prefix, ended, open, finish } = await someInstances("query", 3, 2);
  const idsFor = async (filter) => (await listed(client.getAllInstances(filter))).map((state) => state.instanceId);
  equal(await idsFor({ instanceIdPrefix: prefix }), [...ended, ...open], "by prefix");
  equal(await idsFor({ createdFrom: from, createdTo: to }), [...ended, ...open], "by creation time");
  equal(await idsFor({ createdFrom: to, instanceIdPrefix: prefix }), [], "created later");
  equal(await idsFor({ instanceIdPrefix: prefix, statuses: [COMPLETED] }), ended, "completed");
  equal(await idsFor({ instanceIdPrefix: prefix, statuses: [RUNNING, FAILED] }), open, "running or failed");

  const sizes = [];
  for await (const page of client.getAllInstances({ instanceIdPrefix: prefix }).asPages(undefined, 2)) {
    sizes.push(page.values.length);
  }
  equal(sizes, [2, 2, 1], "sizes of the pages");

  const [bare] = await listed(client.getAllInstances({ instanceIdPrefix: ended[0] }));
  equal([bare.name, bare.runtimeStatus], ["hello", COMPLETED], "name and status");
  equal([bare.serializedInput, bare.serializedOutput], [undefined, undefined], "payloads that were not asked for");
  const [full] = await listed(client.getAllInstances({ instanceIdPrefix: ended[0], fetchInputsAndOutputs: true }));
  equal([full.serializedInput, full.serializedOutput], ['"0"', '"Hello, 0!"'], "payloads");
  await finish();
  return "the SDK has no filter by name";
};

scenarios["list-ids"] = async () => {
  const { from, to, ended, finish } = await someInstances("list", 3, 1);
  const filter = { runtimeStatus: [COMPLETED], completedTimeFrom: from, completedTimeTo: to, pageSize: 2 };
  const first = await client.listInstanceIds(filter);
  equal([first.values.length, first.hasMoreResults], [2, true], "the first page");
  const second = await client.listInstanceIds({ ...filter, lastInstanceKey: first.continuationToken });
  equal(second.values.length, 1, "the second page");
  equal([...first.values, ...second.values].sort(), ended, "IDs");
  const none = await client.listInstanceIds({ ...filter, lastInstanceKey: second.continuationToken });
  equal([none.values.length, none.hasMoreResults], [0, false], "the end");
  const late = await schedule(hello, "late");
  await outputOf(late);
  const going = { runtimeStatus: [COMPLETED], completedTimeFrom: from, pageSize: 2 };
  const after = await client.listInstanceIds({ ...going, lastInstanceKey: second.continuationToken });
  equal(after.values.filter((id) => [...ended, late].includes(id)), [late], "what has ended since");
  await finish();
};

scenarios["purge-by-filter"] = async () => {
  const { from, to, ended, open, finish } = await someInstances("purge", 3, 1);
  const criteria = new PurgeInstanceCriteria();
  criteria.setCreatedTimeFrom(from);
  criteria.setCreatedTimeTo(to);
  criteria.setRuntimeStatusList([COMPLETED, FAILED]);
  equal((await client.purgeOrchestration(criteria)).deletedInstanceCount, 3, "purged");
  for (const id of ended) equal(await client.getOrchestrationState(id), undefined, `state of ${id}`);
  equal(await statusOf(open[0]), RUNNING, "status of what still runs");
  equal((await client.purgeOrchestration(criteria)).deletedInstanceCount, 0, "purged again");
  await finish();
};

// --- history ---------------------------------------------------------------------------------------------------------

scenarios.history = async () => {
  const id = await schedule(hello, "history");
  await outputOf(id);
  const events = await client.getOrchestrationHistory(id);
  const T = HistoryEventType;
  const turns = [T.OrchestratorStarted, T.OrchestratorCompleted];
  const [started, scheduled, completed, ended, ...more] = events.filter((event) => !turns.includes(event.type));
  equal([started.type, started.name, started.input], [T.ExecutionStarted, "hello", '"history"'], "the start");
  equal([scheduled.type, scheduled.name, scheduled.input], [T.TaskScheduled, "greet", '"history"'], "the call");
  equal([completed.type, completed.result], [T.TaskCompleted, '"Hello, history!"'], "the result");
  equal(completed.taskScheduledId, scheduled.eventId, "the call that the result is for");
  equal([ended.type, ended.result], [T.ExecutionCompleted, '"Hello, history!"'], "the end");
  equal(more, [], "events after the end");
  equal(await client.getOrchestrationHistory(newId("missing")), [], "history of an instance that does not exist");
};

// --- restart, rewind, rerun ------------------------------------------------------------------------------------------

scenarios.restart = async () => {
  const id = await schedule(hello, "again");
  await outputOf(id);
  const newOne = await client.restartOrchestration(id, true);
  check(newOne !== id, "the ID is new");
  equal(await outputOf(newOne), "Hello, again!", "output under the new ID");

  const { createdAt } = await client.getOrchestrationState(id);
  equal(await client.restartOrchestration(id), id, "ID of the restart");
  equal(await outputOf(id), "Hello, again!", "output of the restart");
  check((await client.getOrchestrationState(id)).createdAt > createdAt, "the restart was created later");

  const missing = await failing(() => client.restartOrchestration(newId("missing")), "the restart of nothing");
  check(missing.message.includes("was not found"), missing.message);
  const running = await schedule(waiting);
  await client.waitForOrchestrationStart(running);
  const refused = await failing(() => client.restartOrchestration(running), "the restart of what runs");
  check(refused.message.includes("cannot be restarted"), refused.message);
  await client.terminateOrchestration(running);
};

scenarios["restart-running"] = async () => {
  const id = await schedule(waiting);
  await client.waitForOrchestrationStart(id);
  const newOne = await client.restartOrchestration(id, true);
  check(newOne !== id, "the ID is new");
  await reaches(newOne, RUNNING);
  equal(await statusOf(id), RUNNING, "status of the first");
  await client.terminateOrchestration(id);
  await reaches(id, TERMINATED);
  equal(await statusOf(newOne), RUNNING, "status of the second");
  await client.terminateOrchestration(newOne);
};

const runs = new Map();
const count = (key) => runs.set(key, (runs.get(key) ?? 0) + 1).get(key);

activities.push(reserve, charge);
function reserve(ctx, what) {
  count(`${ctx.orchestrationId} reserve`);
  return what;
}
function charge(ctx, what) {
  if (count(`${ctx.orchestrationId} charge`) === 1) throw new CardDeclined("try again");
  return `${what} paid`;
}

orchestrators.push(ordering, orderingChild);
async function* ordering(ctx, childId) {
  const reserved = yield ctx.callActivity(reserve, "a chair");
  const own = yield ctx.callActivity(charge, reserved);
  const childs = yield ctx.callSubOrchestrator(orderingChild, "a table", { instanceId: childId });
  return [own, childs];
}
async function* orderingChild(ctx, what) {
  return yield ctx.callActivity(charge, what);
}

scenarios.rewind = async () => {
  const childId = newId("rewound-child");
  const id = await schedule(ordering, childId);
  for (const rewinds of [1, 2]) {
    equal((await client.waitForOrchestrationCompletion(id)).runtimeStatus, FAILED, `status before rewind ${rewinds}`);
    await client.rewindInstance(id, "the bank was closed");
  }
  equal(await outputOf(id), ["a chair paid", "a table paid"], "output");
  equal(runs.get(`${id} reserve`), 1, "runs of what had succeeded");
  equal(runs.get(`${id} charge`), 2, "runs of what had failed");
  equal(runs.get(`${childId} charge`), 2, "runs of what had failed in the child");
  const missing = await failing(() => client.rewindInstance(newId("missing"), "why"), "the rewind of nothing");
  check(missing.message.includes("was not found"), missing.message);
  const error = await failing(() => client.rewindInstance(id, "why"), "the rewind of what has completed");
  equal(error.cause?.code, grpcStatus.FAILED_PRECONDITION, "code of the second");
};

scenarios.rerun = notOffered("the client has restart and rewind, no rerun from an event");

// --- scheduled-start, tags -------------------------------------------------------------------------------------------

scenarios["scheduled-start"] = async () => {
  const startAt = new Date(Date.now() + 1500);
  const id = await schedule(hello, "later", { startAt });
  equal(await statusOf(id), PENDING, "status at once");
  await sleep(700);
  equal(await statusOf(id), PENDING, "status after 0.7 s");
  equal(await outputOf(id), "Hello, later!", "output");
  check(Date.now() >= startAt, "not before the time");
};

orchestrators.push(tagging);
async function* tagging(ctx, childId) {
  const tags = { of: "child" };
  yield ctx.callActivity(greet, "tags", { tags });
  yield ctx.callSubOrchestrator(hello, "tags", { instanceId: childId, tags });
}

scenarios.tags = async () => {
  const tags = { customer: "Zoë", region: "north" };
  const childId = newId("tagged-child");
  const id = await schedule(tagging, childId, { tags });
  const state = await client.waitForOrchestrationCompletion(id);
  equal([state.runtimeStatus, state.tags], [COMPLETED, tags], "the parent");
  equal((await client.getOrchestrationState(childId)).tags, { of: "child" }, "tags of the child");
};

// --- version ---------------------------------------------------------------------------------------------------------

orchestrators.push(versioned);
async function* versioned(ctx) {
  return { version: ctx.version, newerThan1: ctx.compareVersionTo("1.0.0") > 0 };
}

async function replaceWorker(versioning, more = {}) {
  await worker.stop();
  worker = newWorker({ versioning, ...more });
  await worker.start();
}

scenarios.version = async () => {
  const start = (version) => schedule(versioned, undefined, { version });
  equal(await outputOf(await start("1.2.0")), { version: "1.2.0", newerThan1: true }, "with a version");
  equal(await outputOf(await start()), { version: "", newerThan1: false }, "without a version");

  const strict = { version: "2.0.0", matchStrategy: VersionMatchStrategy.Strict };
  try {
    await replaceWorker({ ...strict, failureStrategy: VersionFailureStrategy.Fail });
    equal(await outputOf(await start("2.0.0")), { version: "2.0.0", newerThan1: true }, "the worker's version");
    const failed = await client.waitForOrchestrationCompletion(await start("1.0.0"), true, 5);
    equal([failed.runtimeStatus, failed.failureDetails.errorType], [FAILED, "VersionMismatch"], "another version");

    await replaceWorker({ ...strict, failureStrategy: VersionFailureStrategy.Reject });
    const rejected = await start("1.0.0");
    await sleep(1000);
    check([PENDING, RUNNING].includes(await statusOf(rejected)), "what the worker rejects stays");
    await replaceWorker();
    equal((await outputOf(rejected)).version, "1.0.0", "what was rejected, with the next worker");
  } finally {
    await replaceWorker();
  }
};

/** A worker of one version that asks only for what it has: activities have no version, and come all the same. */
scenarios["strict-version"] = async () => {
  const start = (version) => schedule(hello, version, { version });
  const strict = { matchStrategy: VersionMatchStrategy.Strict, failureStrategy: VersionFailureStrategy.Reject };
  try {
    await replaceWorker({ ...strict, version: "2.0.0" }, { workItemFilters: "auto" });
    equal(await outputOf(await start("2.0.0")), "Hello, 2.0.0!", "the worker's version");
    const other = await start("1.0.0");
    await sleep(1000);
    check([PENDING, RUNNING].includes(await statusOf(other)), "another version waits");
    await replaceWorker({ ...strict, version: "1.0.0" }, { workItemFilters: "auto" });
    equal(await outputOf(other), "Hello, 1.0.0!", "the other version, with a worker for it");
  } finally {
    await replaceWorker();
  }
};

// --- entities --------------------------------------------------------------------------------------------------------

class Counter extends TaskEntity {
  initializeState() {
    return { value: 0 };
  }
  add(amount) {
    this.state.value += amount;
    return this.state.value;
  }
  get() {
    return this.state.value;
  }
  refuse() {
    throw new CardDeclined("not with me");
  }
  startHello(instanceId) {
    this.context.scheduleNewOrchestration("hello", "entity", { instanceId });
  }
}

orchestrators.push(counter, transfer);
async function* counter(ctx, key) {
  const id = new EntityInstanceId("Counter", key);
  ctx.entities.signalEntity(id, "add", 10);
  const afterAdd = yield ctx.entities.callEntity(id, "add", 1);
  const value = yield ctx.entities.callEntity(id, "get");
  try {
    yield ctx.entities.callEntity(id, "refuse");
  } catch (error) {
    return { afterAdd, value, error: error.failureDetails.errorMessage };
  }
}
async function* transfer(ctx, { from, to, amount }) {
  const [source, target] = [new EntityInstanceId("Counter", from), new EntityInstanceId("Counter", to)];
  const lock = yield ctx.entities.lockEntities(source, target);
  const { inSection } = ctx.entities.isInCriticalSection();
  yield whenAll([
    ctx.entities.callEntity(source, "add", -amount),
    ctx.entities.callEntity(target, "add", amount),
  ]);
  lock.release();
  return inSection;
}

scenarios.entity = async () => {
  const [one, two] = [newId("one"), newId("two")];
  const stateOf = async (key) => {
    const entity = await client.getEntity(new EntityInstanceId("Counter", key));
    return entity?.includesState ? entity.state : undefined;
  };
  equal(await stateOf(one), undefined, "the entity before the first signal");
  await client.signalEntity(new EntityInstanceId("Counter", one), "add", 5);
  await until(() => stateOf(one), (state) => state?.value === 5, "the signal has arrived");

  const called = await outputOf(await schedule(counter, one));
  equal(called, { afterAdd: 16, value: 16, error: "not with me" }, "what the orchestration got");

  const transfers = await Promise.all(
    [[one, two], [two, one], [one, two]].map(([from, to]) => schedule(transfer, { from, to, amount: 3 })),
  );
  for (const id of transfers) equal(await outputOf(id), true, "in the critical section");
  equal([await stateOf(one), await stateOf(two)], [{ value: 13 }, { value: 3 }], "after three transfers");

  const entity = await client.getEntity(new EntityInstanceId("Counter", one));
  equal([entity.id.toString(), entity.lockedBy], [`@counter@${one}`, undefined], "metadata");
  equal((await client.getEntity(entity.id, false)).includesState, false, "state that was not asked for");
};

scenarios["entity-query"] = async () => {
  const prefix = newId("queried");
  const entities = [0, 1, 2].map((i) => new EntityInstanceId("Counter", `${prefix}-${i}`));
  const query = (more) => client.getEntities({ instanceIdStartsWith: `Counter@${prefix}`, ...more });
  const found = async (more) => {
    const list = [];
    for await (const entity of query(more)) list.push(entity);
    return list.sort((a, b) => (a.id.key < b.id.key ? -1 : 1));
  };
  for (const [i, id] of entities.entries()) await client.signalEntity(id, "add", i + 1);
  const withState = async () => (await found()).filter((entity) => entity.includesState);
  const all = await until(withState, (list) => list.length === 3, "three entities");
  equal(all.map((entity) => entity.state), [{ value: 1 }, { value: 2 }, { value: 3 }], "states");
  const bare = await found({ includeState: false });
  equal(bare.map((entity) => entity.includesState), [false, false, false], "states that were not asked for");
  const sizes = [];
  for await (const page of query({ pageSize: 2 }).asPages()) sizes.push(page.values.length);
  equal(sizes, [2, 1], "sizes of the pages");

  await client.signalEntity(entities[0], "delete");
  await until(withState, (list) => list.length === 2, "one entity less");
  equal((await found({ includeTransient: true })).length, 3, "entities with the empty one");
  const { emptyEntitiesRemoved } = await client.cleanEntityStorage();
  check(emptyEntitiesRemoved >= 1, `${emptyEntitiesRemoved} empty entities removed`);
  equal((await found({ includeTransient: true })).length, 2, "entities after the cleaning");

  const orchestrations = await listed(client.getAllInstances({ instanceIdPrefix: "@counter@" }));
  equal(orchestrations, [], "entities among the orchestrations");
};

scenarios.detached = async () => {
  const started = newId("detached");
  await client.signalEntity(new EntityInstanceId("Counter", newId("starter")), "startHello", started);
  await until(() => client.getOrchestrationState(started), (state) => state !== undefined, "it has been started");
  equal(await outputOf(started), "Hello, entity!", "output");
  return "from an entity; an orchestration cannot";
};

scenarios.patch = notOffered("the SDK has versions, no patches");
scenarios["execution-id"] = notOffered("activities have no execution ID");
scenarios["remote-client"] = notOffered("the client cannot name an app");
scenarios["reuse-never"] = notOffered("this version has no reuse policy");

// --- worker and client -----------------------------------------------------------------------------------------------

function newWorker(options = {}) {
  const made = new TaskHubGrpcWorker({ hostAddress, ...options });
  for (const orchestrator of orchestrators) made.addOrchestrator(orchestrator);
  for (const activity of activities) made.addActivity(activity);
  made.addNamedEntity("Counter", () => new Counter());
  return made;
}

await main({
  scenarios,
  start: async () => {
    client = new TaskHubGrpcClient({ hostAddress });
    worker = newWorker();
    await worker.start();
  },
  stop: async () => {
    await worker.stop();
    await client.stop();
  },
});
