"""The token that callers of the app's ports must show: one, or two while it is being changed.

It is given as a setting, or in a file with a token a line, which is read again when it changes. No token is ever part
of a text that this module returns or logs.
"""

import hmac
from collections.abc import Mapping
from pathlib import Path

import structlog

from sidecar.config import parsers
from sidecar.config.settings import StartError
from sidecar.config.watched import Watched

HEADER = "dapr-api-token"
_MOST = 2
_HOW = f"send it as the header {HEADER} (Dapr's SDKs do so when DAPR_API_TOKEN is set), or as a bearer token"
log = structlog.get_logger(__name__)


class ApiTokens:
    """What counts as a token at the moment. The file, if there is one, counts alone."""

    def __init__(self, given: parsers.Secret | None, file: Path | None) -> None:
        """Read the file.

        Raises:
            StartError: it cannot be read, or has no token, or more than two.
        """
        self.file: Watched[list[bytes]] | None = None
        self._given = [] if given is None else [given.value.encode()]
        if file is not None:
            self.file = Watched((file,), lambda: _read(file), _counted)
            if given is not None:
                log.warning("the API token file counts alone: the one in the settings is not used")

    @property
    def asked_for(self) -> bool:
        """Whether callers need one."""
        return self.file is not None or bool(self._given)

    def newest(self) -> str:
        """Return the one that a caller should show; empty if none is asked for."""
        valid = self._current()
        return valid[-1].decode() if valid else ""

    def refusal(self, headers: Mapping[str, object]) -> str | None:
        """Say why who calls with these headers (in lower case, or in any) may not, or return None."""
        offered = _offered(headers)
        valid = self._current()
        matches = [hmac.compare_digest(one, each) for one in offered for each in valid]
        if not valid or any(matches):
            return None
        if offered:
            return f"the API token is not one of this sidecar's: take the current one, and {_HOW}"
        return f"this sidecar asks for its API token: {_HOW}"

    def _current(self) -> list[bytes]:
        """Return what is in force; a file that has become wrong is left alone until it is right."""
        return self._given if self.file is None else self.file.look()


def _counted(valid: list[bytes]) -> str:
    return f"{len(valid)} API token{'s' if len(valid) > 1 else ''}, asked of every caller"


def _offered(headers: Mapping[str, object]) -> list[bytes]:
    scheme, _, bearer = str(headers.get("authorization", "")).partition(" ")
    shown = [str(headers.get(HEADER, "")), bearer.strip() if scheme.lower() == "bearer" else ""]
    return [one.encode(errors="surrogateescape") for one in shown if one]


def _read(file: Path) -> list[bytes]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        found = [parsers.secret(line).value.encode() for line in lines if line]
    except OSError as error:
        raise StartError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise StartError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise StartError(f"{file}: {error}") from None
    if not 1 <= len(found) <= _MOST:
        raise StartError(f"{file} has {len(found)} tokens: write one a line, at most {_MOST}")
    return found
