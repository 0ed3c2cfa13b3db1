"""Says which registry serves something newer than the newest that the matrix tests; `make sdks-newest`.

It asks by the registries' own clients, one package at a time, and needs the network. It fails for a newer version that
no `sdk.json` passes over with a reason; what cannot be asked is said.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.sdks.report import say
from tests.sdks.sdks import ROOT, Build, builds, numbers

_SECONDS = 300
_UPDATES = "org.codehaus.mojo:versions-maven-plugin:2.18.0:display-dependency-updates"


@dataclass(frozen=True, slots=True)
class Pin:
    """A package and the newest version of it that is tested, with the build that it is of."""

    package: str
    version: str
    build: Build

    @property
    def command(self) -> list[str]:
        match self.build.language:
            case "Python":
                return [sys.executable, "-m", "pip", "index", "versions", self.package]
            case "JavaScript":
                return ["npm", "view", self.package, "version"]
            case "Go":
                return ["go", "list", "-m", f"{self.package}@latest"]
            case "Rust":
                return ["cargo", "info", "--color", "never", self.package]
            case "Java":
                return ["mvn", "--batch-mode", _UPDATES, "-f", str(self.build.folder / "pom.xml")]
            case "C#":
                return ["dotnet", "package", "search", self.package, "--exact-match", "--format", "json"]
            case language:
                raise ValueError(f"no registry is known for {language}")


# The version in what the client prints; Maven's names the package only if there is something newer.
_SAID = {
    "Python": r"^\S+ \(({version})\)",
    "JavaScript": r"^({version})$",
    "Go": r"^\S+ v({version})$",
    "Rust": r"^version: ({version})",
    "Java": r"\s{package} \.+ \S+ -> ({version})$",
    "C#": r'"version": *"({version})"',
}


def pins(found: Iterable[Build]) -> list[Pin]:
    """The newest tested version of each package; a build may be of several (`a + b`, `1.0 + 2.0`)."""
    newest: dict[tuple[str, str], Pin] = {}
    for build in found:
        for package, version in zip(build.package.split(" + "), build.version.split(" + "), strict=True):
            pin, key = Pin(package, version.removeprefix("v"), build), (build.language, package)
            if key not in newest or numbers(pin.version) > numbers(newest[key].version):
                newest[key] = pin
    return list(newest.values())


def served(pin: Pin, said: str) -> str | None:
    """The newest version of all that a client has named, if it has named one."""
    pattern = _SAID[pin.build.language].format(package=re.escape(pin.package), version=r"\d+(?:\.\d+)+")
    return max(re.findall(pattern, said, re.MULTILINE), key=numbers, default=None)


def verdict(pin: Pin, version: str | None) -> tuple[str, bool]:
    """What to say of a package of which the registry serves the version, and whether that is a fault."""
    if version is None or numbers(version) <= numbers(pin.version):
        return f"{pin.version}, and nothing newer is served", False
    if why := pin.build.passed_over.get(version):
        return f"{pin.version} is tested; {version} is not: {why}", False
    return f"{pin.version} is tested, and {version} is served", True


def main() -> int:
    newer = False
    for pin in pins(builds()):
        text, fault = _asked(pin)
        newer = newer or fault
        say(f"{'NEWER ' if fault else ''}{pin.package} ({pin.build.language}): {text}")
    return 1 if newer else 0


def _asked(pin: Pin) -> tuple[str, bool]:
    code, said = _run(pin.command)
    version = served(pin, said)
    if code or (version is None and pin.build.language != "Java"):
        lines = said.strip().splitlines() or ["it says nothing"]
        return f"not asked: {lines[-1].strip()}", False
    return verdict(pin, version)


def _run(command: Sequence[str]) -> tuple[int, str]:
    if shutil.which(command[0]) is None:
        return 1, f"no {command[0]} on the path"
    try:
        # Not in a folder that pins versions of its own: some clients would answer with those.
        done = subprocess.run(
            command,
            cwd=ROOT.parent,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {_SECONDS} s"
    return done.returncode, done.stdout or done.stderr


if __name__ == "__main__":
    sys.exit(main())
