"""Random workflow programs, and what each must come to.

A program is plain data: a list of steps, run one after the other; each adds to the workflow's value. Its outcome can
be told without running it (`outcomes`), so that a result that was lost or counted twice shows.
"""

import json
import random
from collections.abc import Collection
from typing import Any

from tests.simulation import entities

Step = list[Any]
Program = list[Step]
DEEPEST = 2
COMPLETED, FAILED = 1, 3
POISON = -2  # attempts of an activity that costs each worker that gets it
WEAK = -1  # attempts of an activity that fail: all, until it is mended


class Violation(AssertionError):  # noqa: N818 (what is broken is a promise, not the test)
    """A worker was told something that cannot be."""


def program(rng: random.Random, apps: list[str], hosts: list[str], depth: int = 0) -> Program:
    """Return a random program: `apps` may run its activities, `hosts` its children too."""
    steps = [_step(rng, apps, hosts, depth) for _ in range(rng.randint(1, 4 if depth == 0 else 2))]
    # An event for a workflow that has failed is dropped: one that is to be rewound waits for none.
    return [step for step in steps if step[0] not in ("weak", "must")] if waits(steps) else steps


def _step(rng: random.Random, apps: list[str], hosts: list[str], depth: int) -> Step:
    number = rng.randint(1, 99)
    simple = {
        "act": lambda: ["act", rng.choice(apps), number],
        "fan": lambda: ["fan", [[rng.choice(apps), rng.randint(1, 9)] for _ in range(rng.randint(2, 8))]],
        "flaky": lambda: ["flaky", rng.choice(apps), number, rng.randint(1, 2)],
        "timer": lambda: ["timer", rng.choice([0, 0.05, 0.5, 3, 40, -5])],
        "never": lambda: ["never", rng.choice(apps), number],
        "leave": lambda: ["leave", rng.choice(apps), number],
        "can": lambda: ["can"],
        "event": lambda: ["event", f"e{rng.randrange(10**6)}", number],
        "weak": lambda: ["weak", rng.choice(apps), number],
    }
    kinds = ["act", "act", "fan", "flaky", "timer", "never", "leave"]
    kinds += ["event", "event", "weak", "must"] * (depth == 0)
    kinds += ["child", "child", "can", "tell", "tell", "detach"] * (depth < DEEPEST)
    kind = rng.choice([*kinds, *entities.STEPS])
    if kind in entities.STEPS:
        return entities.step(rng, kind)
    if kind in simple:
        return simple[kind]()
    if kind == "must":
        steps = [["act", rng.choice(apps), number], ["weak", rng.choice(apps), number]]
        return ["must", rng.choice(hosts), _tag(rng), steps]
    inner = program(rng, apps, hosts, depth + 1)
    return ["detach", rng.choice(hosts), inner] if kind == "detach" else _child(rng, apps, hosts, inner, kind)


def _child(rng: random.Random, apps: list[str], hosts: list[str], inner: Program, kind: str) -> Step:
    """Return a step that makes a child, which may be told something and may tell something itself."""
    tag = _tag(rng)
    for _ in range(rng.choice([0, 0, 1, 2])):
        inner.insert(rng.randint(0, len(inner)), ["say", f"s{tag}", rng.randint(1, 9)])
    if kind == "tell":
        # Results close behind the events: over a bad link both come again together.
        numbers = [rng.randint(1, 9) for _ in range(rng.choice([1, 1, 3]))]
        fan = ["fan", [[rng.choice(apps), rng.randint(1, 9)] for _ in range(3)]]
        stay = rng.choice([[], [fan], [["timer", rng.choice([0.05, 0.5, 3])]]])
        return ["tell", rng.choice(hosts), tag, numbers, [["hear", tag, numbers], *stay, *inner]]
    if rng.random() < 0.15:
        inner.append(["fail"])
    return ["child", rng.choice(hosts), tag, inner]


def _tag(rng: random.Random) -> str:
    return f"c{rng.randrange(10**9)}"


def outcomes(steps: Program, struck: Collection[str] = (), *, mended: bool = False) -> set[tuple[int, int]]:
    """Return each status and value that a program may end with. What is weak in it fails unless it was mended.

    A child that a client ended, with its tag in `struck`, had an outcome already, or its parent is told of a failure.
    """
    values = {0}
    for step in steps:
        if step[0] == "fail" or (step[0] in ("weak", "must") and not mended):
            return {(FAILED, value) for value in values}
        values = {value + gain for value in values for gain in _gains(step, struck)}
    return {(COMPLETED, value) for value in values}


def _gains(step: Step, struck: Collection[str]) -> set[int]:
    """Return what a step that does not fail may add to the value of its workflow."""
    kind = step[0]
    if kind in ("act", "flaky", "never", "weak"):
        return {activity(step[2])}
    if kind == "fan":
        return {sum(activity(number) for _, number in step[1])}
    if kind in entities.STEPS:
        return {entities.gain(step)}
    if kind in ("event", "worth", "hear", "poison"):
        return {sum(step[2]) if kind == "hear" else step[2]}
    if kind not in ("must", "child", "tell"):
        return {0}
    said = sum(number for _, number in said_by(step[-1]))
    ends = outcomes(step[-1], struck, mended=kind == "must")
    told = {1} if step[2] in struck else set()
    return told | {inner + said if status == COMPLETED else 1 for status, inner in ends}


def _fails(steps: Program) -> bool:
    return any(status == FAILED for status, _ in outcomes(steps))


def said_by(steps: Program) -> list[tuple[str, int]]:
    """Return the events that a child sends to its parent, with their values."""
    return [(step[1], step[2]) for step in steps if step[0] == "say"]


def may_be_struck(steps: Program) -> bool:
    """Whether a client may end a child by itself: one that is rewound must fail of what is weak in it alone."""
    return has_children(steps) and not weak(steps)


def has_children(steps: Program) -> bool:
    """Whether a program has children, or what it starts has."""
    return _has(steps, "child", "tell")


def tag_of(instance_id: str) -> str | None:
    """Return the tag of the step that made a child; None for what is no child."""
    made_by = instance_id.rpartition(":")[2]
    return made_by.partition(".")[0] if ":" in instance_id and made_by.startswith("c") else None


def worth(steps: Program, value: int) -> Program:
    """Return a program that comes to what these steps come to after others that came to a value."""
    return [["worth", "", value], *steps]


def weak(steps: Program) -> bool:
    """Whether something in a program must be mended before it can succeed."""
    return any(step[0] in ("weak", "must") for step in steps)


def plain(steps: Program) -> bool:
    """Whether a program needs nobody, neither for events nor to mend it: it can be run any number of times."""
    return not _has(steps, "event", "tell", "say", "weak", "must")


def _has(steps: Program, *kinds: str) -> bool:
    """Whether there are such steps in a program or in what it starts."""
    text = json.dumps(steps)
    return any(f'["{kind}"' in text for kind in kinds)


def hears(steps: Program) -> bool:
    """Whether a program, or what it starts, waits for an event of anybody."""
    return _has(steps, "event", "tell", "say")


def waits(steps: Program) -> list[tuple[str, int]]:
    """Return the events that the program itself waits for, with their values."""
    return [(step[1], step[2]) for step in steps if step[0] == "event"]


def activity(number: int) -> int:
    """What an activity answers."""
    return number * 3 + 1
