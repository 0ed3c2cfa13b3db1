// What every scenario needs, and the command line that tests/sdks/README.md asks for.

import assert from "node:assert/strict";
import { Console } from "node:console";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const SCENARIO_SECONDS = 30;

// Standard output is for the results alone; the SDKs log to the console.
globalThis.console = new Console(process.stderr);

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** A scenario that the SDK has no API for. */
export const notOffered = (reason) => ({ notOffered: reason });

/** What the scenario "inputs" gives to an activity, before it gives nothing, and what that must show. */
export const INPUTS = ["text", 7, [1, 2], [], null, { a: 1 }];
export const SHOWN = ['"text"', "7", "[1,2]", "[]", "null", '{"a":1}', "null"];

let ids = 0;

/** An instance ID that no other run uses. */
export const newId = (name) => `${process.env.RUN_ID ?? "run"}-${name}-${++ids}`;

export function equal(actual, expected, what) {
  try {
    assert.deepStrictEqual(actual, expected);
  } catch {
    assert.fail(`${what}: expected ${brief(expected)}, got ${brief(actual)}`);
  }
}

export function check(condition, what) {
  assert.ok(condition, what);
}

/** Asks again and again until `read` gives something that `accept` likes. */
export async function until(read, accept, what, seconds = 10) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await read();
    if (accept(value)) return value;
    if (Date.now() > end) assert.fail(`not within ${seconds} s: ${what}; last seen: ${brief(value)}`);
    await sleep(50);
  }
}

/** The error that the call must end with. */
export async function failing(call, what) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return assert.fail(`${what} was not refused`);
}

/** Begins a wait half a second before what it waits for, and returns what it gives. */
export async function early(wait, begin) {
  let over = false;
  const waiting = wait().finally(() => (over = true));
  await sleep(500);
  check(!over, "the wait ended before there was anything");
  await begin();
  return waiting;
}

/** As `until`, for what takes as long as it likes within the scenario and may fail meanwhile. */
export async function eventually(read, accept) {
  while (!accept(await read().catch(() => undefined))) await sleep(100);
}

/** How long the activity of the scenario "graceful-stop" takes, in milliseconds. */
export const LINGER = 4000;

function brief(value) {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 200 ? `${text.slice(0, 200)}… (${text.length} characters)` : text;
}

async function play(name, scenario) {
  if (!scenario) return say({ scenario: name, result: "fail", detail: "this program does not know it" });
  if (scenario.notOffered) return say({ scenario: name, result: "not offered", detail: scenario.notOffered });
  const started = Date.now();
  const giveUp = new AbortController();
  const late = sleep(SCENARIO_SECONDS * 1000, null, { signal: giveUp.signal }).then(() => assert.fail("timed out"));
  let outcome;
  try {
    const detail = await Promise.race([scenario(), late]);
    outcome = { result: "pass", ...(detail && { detail }) };
  } catch (error) {
    console.error(error);
    const type = error instanceof assert.AssertionError ? "" : `${error?.constructor?.name}: `;
    outcome = { result: "fail", detail: type + String(error?.message ?? error).replaceAll("\n", " ") };
  } finally {
    giveUp.abort();
    late.catch(() => {});
  }
  return say({ scenario: name, ...outcome, seconds: (Date.now() - started) / 1000 });
}

/** Runs the command of the command line; `start` makes worker and client ready, `stop` ends them. */
export async function main({ scenarios, start, stop }) {
  const [command, ...names] = process.argv.slice(2);
  await start();
  say({ ready: true });
  if (command === "run") {
    for (const name of names) await play(name, scenarios[name]);
  } else {
    for await (const line of createInterface({ input: process.stdin })) {
      const name = line || "hello";
      if (command === "idle") await play(name, scenarios[name]);
    }
  }
  const tooLong = setTimeout(() => process.exit(0), 5000);
  await stop().catch((error) => console.error(error));
  clearTimeout(tooLong);
  process.exit(0);
}
