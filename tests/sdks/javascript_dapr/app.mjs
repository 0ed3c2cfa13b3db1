// The scenarios of tests/sdks/README.md with Dapr's SDK for JavaScript. The SDK finds the sidecar by the environment.

import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { DaprWorkflowClient, WorkflowRuntime, WorkflowRuntimeStatus } from "@dapr/dapr";
import { status as grpcStatus } from "@grpc/grpc-js";
import { check, early, equal, eventually, failing, INPUTS, LINGER, main, newId, notOffered, SHOWN, until } from "./stage.mjs";

const { COMPLETED, FAILED, PENDING, RUNNING, SUSPENDED, TERMINATED } = WorkflowRuntimeStatus;
const OLD = createRequire(import.meta.url)("@dapr/dapr/package.json").version.startsWith("3.6.");

let client;
let runtime;

const scenarios = {};
const workflows = [];
const activities = [];

/** Schedules a workflow and returns its ID. */
const schedule = (workflow, input, id = newId(workflow.name), startAt = undefined) =>
  client.scheduleNewWorkflow(workflow, input, id, startAt);

const stateAtEnd = (id) => client.waitForWorkflowCompletion(id, true, 25);

/** The output of a workflow that must complete. */
async function outputOf(id) {
  const state = await stateAtEnd(id);
  const why = state.workflowFailureDetails?.getErrorMessage();
  equal([state.runtimeStatus, why], [COMPLETED, undefined], "status");
  return JSON.parse(state.serializedOutput);
}

const statusOf = async (id) => (await client.getWorkflowState(id, true)).runtimeStatus;
const reaches = (id, status) =>
  until(() => statusOf(id), (now) => now === status, `status ${WorkflowRuntimeStatus[status]}`);

// --- hello -----------------------------------------------------------------------------------------------------------

activities.push(greet);
function greet(_, name) {
  return `Hello, ${name}!`;
}

workflows.push(hello);
async function* hello(ctx, name) {
  return yield ctx.callActivity(greet, name);
}

scenarios.hello = async () => {
  const before = Date.now();
  const id = await schedule(hello, "Tokyo");
  const state = await stateAtEnd(id);
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

workflows.push(chain, fanOut);
async function* chain(ctx, start) {
  const second = yield ctx.callActivity(addOne, start);
  const third = yield ctx.callActivity(addOne, second);
  return yield ctx.callActivity(addOne, third);
}
async function* fanOut(ctx, count) {
  const tasks = [];
  for (let i = 1; i <= count; i++) tasks.push(ctx.callActivity(square, i));
  const squares = yield ctx.whenAll(tasks);
  return squares.reduce((sum, value) => sum + value, 0);
}

scenarios.chain = async () => equal(await outputOf(await schedule(chain, 1)), 4, "output");
scenarios["fan-out"] = async () => equal(await outputOf(await schedule(fanOut, 50)), 42925, "output");

// --- fan-in ----------------------------------------------------------------------------------------------------------

activities.push(fill);
function fill(_, length) {
  return "x".repeat(length);
}

workflows.push(fanIn);
async function* fanIn(ctx, length) {
  const tasks = Array.from({ length: 60 }, () => ctx.callActivity(fill, length));
  const texts = yield ctx.whenAll(tasks);
  return texts.reduce((sum, text) => sum + text.length, 0);
}

scenarios["fan-in"] = async () => equal(await outputOf(await schedule(fanIn, 150_000)), 9_000_000, "characters");

scenarios.retry = notOffered("callActivity has no retry policy");

// --- timer -----------------------------------------------------------------------------------------------------------

workflows.push(timer);
async function* timer(ctx, seconds) {
  const start = ctx.getCurrentUtcDateTime();
  yield ctx.createTimer(seconds);
  return ctx.getCurrentUtcDateTime() - start;
}

scenarios.timer = async () => {
  const start = Date.now();
  const moved = await outputOf(await schedule(timer, 1));
  check(Date.now() - start >= 1000, `the timer fired after ${Date.now() - start} ms`);
  check(moved >= 1000, `the workflow's clock moved by ${moved} ms`);
};

// --- event -----------------------------------------------------------------------------------------------------------

workflows.push(event);
async function* event(ctx) {
  const approval = yield ctx.waitForExternalEvent("approval");
  const second = ctx.waitForExternalEvent("never");
  const timeout = ctx.createTimer(0.3);
  const winner = yield ctx.whenAny([second, timeout]);
  return { approval, timedOut: winner === timeout };
}

scenarios.event = async () => {
  const id = await schedule(event);
  await client.waitForWorkflowStart(id);
  await client.raiseEvent(id, "approval", { by: "Zoë", amount: 7 });
  equal(await outputOf(id), { approval: { by: "Zoë", amount: 7 }, timedOut: true }, "output");
};

// --- child -----------------------------------------------------------------------------------------------------------

workflows.push(parent, child);
async function* parent(ctx, childId) {
  const named = ctx.callChildWorkflow(child, 1, childId);
  const unnamed = ctx.callChildWorkflow(child, 2);
  return yield ctx.whenAll([named, unnamed]);
}
async function* child(ctx, number) {
  const result = yield ctx.callActivity(addOne, number);
  return { id: ctx.getWorkflowInstanceId(), result };
}

scenarios.child = async () => {
  const childId = newId("named-child");
  const id = await schedule(parent, childId);
  const [named, unnamed] = await outputOf(id);
  equal(named, { id: childId, result: 2 }, "the named child");
  equal(unnamed.result, 3, "result of the unnamed child");
  check(unnamed.id.startsWith(`${id}:`), `ID of the unnamed child: ${unnamed.id}`);
  equal(await statusOf(childId), COMPLETED, "status of the named child");
  equal(await statusOf(unnamed.id), COMPLETED, "status of the unnamed child");
};

// --- continue-as-new -------------------------------------------------------------------------------------------------

workflows.push(counting);
async function* counting(ctx, count) {
  if (count === 1) yield ctx.waitForExternalEvent("go");
  if (count < 5) return ctx.continueAsNew(count + 1, true);
  const kept = yield ctx.waitForExternalEvent("kept");
  return { count, kept };
}

scenarios["continue-as-new"] = async () => {
  const id = await schedule(counting, 1);
  await client.raiseEvent(id, "kept", "since the first execution");
  await client.raiseEvent(id, "go", true);
  equal(await outputOf(id), { count: 5, kept: "since the first execution" }, "output");
};

// --- suspend-resume, terminate, purge --------------------------------------------------------------------------------

workflows.push(waiting);
async function* waiting(ctx) {
  return yield ctx.waitForExternalEvent("end");
}

scenarios["suspend-resume"] = async () => {
  const id = await schedule(waiting);
  await client.waitForWorkflowStart(id);
  await client.suspendWorkflow(id);
  await reaches(id, SUSPENDED);
  await client.raiseEvent(id, "end", "later");
  await sleep(500);
  equal(await statusOf(id), SUSPENDED, "status after an event");
  await client.resumeWorkflow(id);
  equal(await outputOf(id), "later", "output");
};

scenarios.terminate = async () => {
  const id = await schedule(waiting);
  await client.waitForWorkflowStart(id);
  await client.terminateWorkflow(id, { reason: "enough" });
  const state = await stateAtEnd(id);
  equal([state.runtimeStatus, state.serializedOutput], [TERMINATED, '{"reason":"enough"}'], "the workflow");
  return "terminateWorkflow has no option for children";
};

scenarios.purge = async () => {
  const id = await schedule(hello, "purge");
  await outputOf(id);
  equal(await client.purgeWorkflow(id), true, "purged");
  equal(await client.getWorkflowState(id, true), undefined, "state after the purge");
  equal(await client.purgeWorkflow(id), false, "purged again");
};

// --- failure-details -------------------------------------------------------------------------------------------------

class CardDeclined extends Error {}

activities.push(declining);
function declining(_, card) {
  throw new CardDeclined(`no money on ${card}`);
}

workflows.push(paying, payingCarefully);
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
  const state = await stateAtEnd(await schedule(paying, "4711"));
  equal(state.runtimeStatus, FAILED, "status");
  equal(state.workflowFailureDetails.getErrorType(), "TaskFailedError", "type that the client sees");
  const message = state.workflowFailureDetails.getErrorMessage();
  check(message.includes("no money on 4711"), `message: ${message}`);
  if (OLD) return "this version loses what a workflow does after it has caught an error";
  const seen = await outputOf(await schedule(payingCarefully, "4711"));
  return equal(seen, { type: "CardDeclined", message: "no money on 4711" }, "what the workflow sees");
};

// --- custom-status ---------------------------------------------------------------------------------------------------

workflows.push(reporting);
async function* reporting(ctx) {
  ctx.setCustomStatus("half done");
  yield ctx.waitForExternalEvent("on");
  ctx.setCustomStatus("all done");
}

scenarios["custom-status"] = async () => {
  const id = await schedule(reporting);
  const customStatus = async () => (await client.getWorkflowState(id, true)).customStatus;
  await until(customStatus, (now) => now === "half done", "half done");
  equal(await statusOf(id), RUNNING, "status while half done");
  await client.raiseEvent(id, "on", true);
  const state = await stateAtEnd(id);
  equal([state.runtimeStatus, state.customStatus], [COMPLETED, "all done"], "at the end");
};

// --- clear-status ----------------------------------------------------------------------------------------------------

workflows.push(clearing);
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
  const customStatus = async () => (await client.getWorkflowState(id, true)).customStatus || undefined;
  for (const [status, event] of [["busy", "clear"], [undefined, "again"], ["busy again", "continue"], [undefined, "end"]]) {
    await until(customStatus, (now) => now === status, `status ${status}`);
    await client.raiseEvent(id, event, true);
  }
  equal(await outputOf(id), true, "output");
};

// --- payload ---------------------------------------------------------------------------------------------------------

activities.push(echo);
function echo(_, value) {
  return value;
}

workflows.push(echoing);
async function* echoing(ctx, value) {
  return yield ctx.callActivity(echo, value);
}

scenarios.payload = async () => {
  const unit = "Grüße 世界 🙂\n"; // 22 bytes
  const text = unit.repeat(Math.ceil((1 << 20) / Buffer.byteLength(unit)));
  const id = await schedule(echoing, text);
  check((await outputOf(id)) === text, "the output is the input");
  check(JSON.parse((await client.getWorkflowState(id, true)).serializedInput) === text, "the input is kept");
};

// --- reuse, missing --------------------------------------------------------------------------------------------------

scenarios.reuse = async () => {
  const id = await schedule(waiting);
  await client.waitForWorkflowStart(id);
  const error = await failing(() => schedule(waiting, undefined, id), "a second start");
  equal(error.code, grpcStatus.ALREADY_EXISTS, "code");
  equal(await statusOf(id), RUNNING, "status of the first");
  await client.terminateWorkflow(id, null);
};

/** The error of raiseEvent, which 3.6 does not hand to its caller. */
async function raising(id) {
  if (!OLD) return failing(() => client.raiseEvent(id, "event"), "raise");
  const unhandled = new Promise((resolve) => process.once("unhandledRejection", resolve));
  await client.raiseEvent(id, "event");
  return unhandled;
}

scenarios.missing = async () => {
  const id = newId("missing");
  equal(await client.getWorkflowState(id, true), undefined, "get");
  equal((await raising(id)).code, grpcStatus.NOT_FOUND, "code of raise");
  for (const [what, call] of Object.entries({
    suspend: () => client.suspendWorkflow(id),
    resume: () => client.resumeWorkflow(id),
    terminate: () => client.terminateWorkflow(id, null),
  })) {
    equal((await failing(call, what)).code, grpcStatus.NOT_FOUND, `code of ${what}`);
  }
};

// --- scheduled-start -------------------------------------------------------------------------------------------------

scenarios["scheduled-start"] = async () => {
  const startAt = new Date(Date.now() + 1500);
  const id = await schedule(hello, "later", undefined, startAt);
  equal(await statusOf(id), PENDING, "status at once");
  await sleep(700);
  equal(await statusOf(id), PENDING, "status after 0.7 s");
  equal(await outputOf(id), "Hello, later!", "output");
  check(Date.now() >= startAt, "not before the time");
};

// --- early-wait, graceful-stop, long-history -------------------------------------------------------------------------

scenarios["early-wait"] = async () => {
  const id = newId("early");
  const state = await early(() => stateAtEnd(id), () => schedule(hello, "early", id));
  equal([state.runtimeStatus, state.serializedOutput], [COMPLETED, '"Hello, early!"'], "what the wait ended with");
};

activities.push(linger);
async function linger() {
  await sleep(LINGER);
  return "done";
}

workflows.push(lingering);
async function* lingering(ctx) {
  return yield ctx.callActivity(linger);
}

scenarios["graceful-stop"] = async () => {
  const id = await schedule(lingering);
  await eventually(() => client.getWorkflowState(id, true), (state) => state?.serializedOutput === '"done"');
};

workflows.push(filling);
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
  const customStatus = async () => (await client.getWorkflowState(id, true)).customStatus;
  await until(customStatus, (now) => now === "filled", "its history is long", 25);
  await runtime.stop();
  await startRuntime();
  await client.raiseEvent(id, "end", true);
  equal(await outputOf(id), 6_000_000, "characters");
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

workflows.push(remoteActivity, remoteChild, routedChild);
async function* remoteActivity(ctx) {
  return yield ctx.whenAll([ctx.callActivity(where), ctx.callActivity(routedWhere)]);
}
async function* remoteChild(ctx, childId) {
  return yield ctx.callChildWorkflow(routedChild, "visit", childId);
}
async function* routedChild(ctx, text) {
  return [text, ctx.getWorkflowInstanceId(), yield ctx.callActivity(where)];
}

scenarios["remote-activity"] = async () => {
  const output = await outputOf(await schedule(remoteActivity));
  equal(output, [process.env.APP_ID, process.env.OTHER_APP], "where the activities ran");
  return BY_ROUTE;
};

scenarios["remote-child"] = async () => {
  const childId = newId("remote-child");
  equal(await outputOf(await schedule(remoteChild, childId)), ["visit", childId, process.env.OTHER_APP], "output");
  return BY_ROUTE;
};

// --- inputs ----------------------------------------------------------------------------------------------------------

activities.push(Show);
function Show(_, input) {
  return JSON.stringify(input ?? null);
}

workflows.push(inputs);
/** Gives an activity there each kind of input, and at last none, by a route. */
async function* inputs(ctx) {
  const shown = [];
  for (const input of INPUTS) shown.push(yield ctx.callActivity(Show, input));
  shown.push(yield ctx.callActivity(Show));
  return shown;
}

scenarios.inputs = async () => {
  equal(await outputOf(await schedule(inputs)), SHOWN, "what it was given");
  return BY_ROUTE;
};

// --- what the SDK has no API for -------------------------------------------------------------------------------------

Object.assign(scenarios, {
  query: notOffered("the client has no query"),
  "list-ids": notOffered("the client has no list of IDs"),
  "purge-by-filter": notOffered("purgeWorkflow takes one ID"),
  history: notOffered("the client has no history"),
  restart: notOffered("the client has no restart"),
  rewind: notOffered("the client has no rewind"),
  rerun: notOffered("the client has no rerun"),
  tags: notOffered("scheduleNewWorkflow has no tags"),
  version: notOffered("neither scheduleNewWorkflow nor the runtime has versions"),
  entity: notOffered("Dapr's workflows have no entities"),
  "entity-query": notOffered("Dapr's workflows have no entities"),
  detached: notOffered("a workflow can start others only as its children"),
  patch: notOffered("the workflow context has no patches"),
  "execution-id": notOffered("activities have no retry policy and no execution ID"),
  "remote-client": notOffered("the client cannot name an app"),
  "reuse-never": notOffered("scheduleNewWorkflow has no reuse policy"),
  "restart-running": notOffered("the client has no restart"),
  "strict-version": notOffered("the runtime has no versions"),
});

// --- worker and client -----------------------------------------------------------------------------------------------

async function startRuntime() {
  runtime = new WorkflowRuntime();
  for (const workflow of workflows) runtime.registerWorkflow(workflow);
  for (const activity of activities) runtime.registerActivity(activity);
  await runtime.start();
}

await main({
  scenarios,
  start: async () => {
    client = new DaprWorkflowClient();
    await startRuntime();
  },
  stop: async () => {
    await runtime.stop();
    await client.stop();
  },
});
