"""Runs one target in this process: by mutation alone, or led by coverage. Also replays and shortens findings."""

import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.targets import BY_NAME, Target

ROOT = Path(__file__).resolve().parents[2]
SLOW_SECONDS = 5.0  # of the processor, for one input
MOST_MIB = 1024
MUTATION, COVERAGE = "mutation", "coverage"
_KEPT = 20  # different findings of one run


@dataclass
class Tally:
    """The figures of one target's run."""

    target: str
    driver: str
    runs: int = 0
    inputs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    peak_mib: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)  # what it is -> an input, in hex

    def save(self, path: Path) -> None:
        """Write the figures."""
        self.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self.driver == MUTATION and self.peak_mib > MOST_MIB:  # libFuzzer keeps its inputs in memory
            self.findings[f"{self.peak_mib:.0f} MiB of memory"] = ""
        path.write_text(json.dumps(asdict(self)))


def finding(target: Target, data: bytes, tally: Tally | None = None) -> str | None:
    """Run one input; return what is wrong with it, in one line, or None."""
    tally = tally or Tally(target.name, MUTATION)
    began = time.process_time()
    wrong = None
    count: int | None = 1
    try:
        count = target.run(data)
    except Exception as error:
        wrong = _named(error)
    took = time.process_time() - began
    tally.runs += 1
    tally.inputs += 1 if count is None else count
    tally.slowest = max(tally.slowest, took)
    return wrong or (f"an input took {took:.0f} s" if took > SLOW_SECONDS else None)


def _named(error: BaseException) -> str:
    """Return a finding in a line: the first error, and the last place of the sidecar that it came through."""
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    places = [frame for frame in traceback.extract_tb(first.__traceback__) if "/sidecar/" in frame.filename]
    place = f"{Path(places[-1].filename).relative_to(ROOT)}:{places[-1].lineno}" if places else "?"
    text = " ".join(str(error).split())[:160]
    return f"{type(first).__name__} at {place}: {text}"


def _keep(tally: Tally, target: Target, wrong: str, data: bytes) -> None:
    """Take a finding into the figures, once for each place."""
    place = wrong.partition(": ")[0]
    known = any(one.startswith(place) for one in tally.findings) if not place.endswith("?") else wrong in tally.findings
    if not known and len(tally.findings) < _KEPT:
        tally.findings[wrong] = shortened(target, data, place).hex()


def shortened(target: Target, data: bytes, place: str, seconds: float = 5.0) -> bytes:
    """Return a shorter input with the same finding, as far as that is found in a few seconds."""

    def same(candidate: bytes) -> bool:
        return (finding(target, candidate) or "").startswith(place)

    size, end = len(data) // 2, time.monotonic() + seconds
    while size and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            candidate = data[:at] + data[at + size :]
            if same(candidate):
                data = candidate
            else:
                at += size
        size //= 2
    return data


def mutate(target: Target, until: Callable[[Tally], bool], seed: int) -> Tally:
    """Try the pool as it is, then mutations of it."""
    rng = random.Random(f"{target.name} {seed}")
    pool = list(target.pool())
    tally = Tally(target.name, MUTATION)
    began = time.monotonic()
    while not until(tally):
        data = pool[tally.runs] if tally.runs < len(pool) else target.mutate(rng.choice(pool), rng)
        wrong = finding(target, data, tally)
        if wrong:
            _keep(tally, target, wrong, data)
    tally.seconds = time.monotonic() - began
    return tally


def cover(target: Target, until: Callable[[Tally], bool], seed: int, out: Path) -> None:
    """Let coverage choose what to mutate further. Does not return: libFuzzer owns the process."""
    import atheris  # type: ignore[import-not-found]  # noqa: PLC0415

    tally = Tally(target.name, COVERAGE)
    began = time.monotonic()

    def one(data: bytes) -> None:
        wrong = finding(target, data, tally)
        if wrong:
            _keep(tally, target, wrong, data)
        if until(tally):
            tally.seconds = time.monotonic() - began
            tally.save(out)
            os._exit(0)

    def mutated(data: bytes, most: int, number: int) -> bytes:
        if number % target.every:
            return bytes(atheris.Mutate(data, most))
        return target.mutate(data, random.Random(number))[:most]

    with tempfile.TemporaryDirectory() as directory:
        for number, data in enumerate(target.pool()):
            (Path(directory) / str(number)).write_bytes(data)
        options = [f"-seed={seed + 1}", "-max_len=16384", "-rss_limit_mb=4096", "-timeout=60", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={out}.", directory], one, custom_mutator=mutated)
        atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """TARGET DRIVER SECONDS INPUTS SEED OUT: run one target and write its figures to the file OUT."""
    name, driver, seconds, inputs, seed, out = arguments
    end = time.monotonic() + float(seconds)

    def until(tally: Tally) -> bool:
        return time.monotonic() > end or tally.inputs >= int(inputs)

    if driver == COVERAGE:
        cover(BY_NAME[name], until, int(seed), Path(out))
    mutate(BY_NAME[name], until, int(seed)).save(Path(out))


if __name__ == "__main__":
    main(sys.argv[1:])
