"""The file by which the sidecars of one machine find each other: the address of each app's, read again as it changes.

Whoever writes it holds a lock, which the system takes back from a process that dies, and puts a new file in the place
of the old one, so that nobody reads half of one. Who is killed leaves an entry: the next who comes removes those at
which nobody listens, and at an address that another app has by then, its sidecar says who it is.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sidecar.config import addresses, settings
from sidecar.config.settings import StartError

_LOCK_SECONDS = 20.0  # a holder needs milliseconds; on a machine under load many may come before
_PROBE_SECONDS = 0.5
_SAYS = (
    "# Where the sidecars of this machine are. Each daprd writes itself in at its start, and takes itself out again.\n"
)

_Peers = dict[str, tuple[str, ...]]


class Neighbours:
    """The entry of one app in a file. All methods wait for others, so that they are for a thread."""

    def __init__(self, file: Path, app: str) -> None:
        self._file = file
        self._app = app

    def make(self) -> None:
        """Make the file if there is none, so that it can be watched. Raises StartError as `enter` does."""
        with self._changed():
            pass

    def enter(self, address: str) -> None:
        """Say that the app's sidecar is at an address, "host:port", which is held, as is its store.

        Raises:
            StartError: it cannot be said; the text says why and what to do.
        """
        with self._changed() as peers:
            peers.pop(self._app, None)
            for app in [app for app, known in peers.items() if address in known or _is_dead(known)]:
                del peers[app]
            alike = next((app for app in peers if app.lower() == self._app.lower()), None)
            if alike is not None:
                raise StartError(f"{alike!r} and this app's ID {self._app!r} differ only in case: change one of them")
            peers[self._app] = (address,)

    def leave(self, address: str) -> None:
        """Take the entry back, if it still is the own one. Raises StartError as `enter` does."""
        with self._changed() as peers:
            if peers.get(self._app) == (address,):
                del peers[self._app]

    @contextmanager
    def _changed(self) -> Iterator[_Peers]:
        """Have what the file says changed, and write it if that went well."""
        file = self._file
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(f"{file}.lock", timeout=_LOCK_SECONDS, mode=0o600):
                before = dict(settings.read_peers(file)) if file.exists() else {}
                after = dict(before)
                yield after
                if after != before or not file.exists():
                    _write(file, after)
        except Timeout:
            raise StartError(f"{file}: another process has had the lock of it for long: look who it is") from None
        except OSError as error:
            raise StartError(f"cannot write {file}: {error.strerror or error}") from error
        except ValueError as error:
            raise StartError(f"{error}: correct the file, or remove it") from error


def _write(file: Path, peers: Mapping[str, tuple[str, ...]]) -> None:
    fresh = file.with_name(f"{file.name}.new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as writing:
        # JSON is YAML too, and quotes an app ID such as `on`.
        writing.write(_SAYS + json.dumps(peers, indent=2) + "\n")
    os.replace(fresh, file)


def _is_dead(known: tuple[str, ...]) -> bool:
    """Whether nobody listens at any of an app's addresses; one on another machine may be out of reach for a while."""
    return all(_stays(address) and _refuses(address) for address in known)


def _stays(address: str) -> bool:
    return addresses.off_loopback({"": (address,)}) is None


def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
