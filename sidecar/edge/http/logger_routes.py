"""The routes at which the levels of the log are read and changed: `/v1.0/loggers`."""

import json
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from sidecar.edge.http.answers import error

_SHOWN_CHARACTERS = 200
_REFUSED = "ERR_LOGGER"


class LogLevels(Protocol):
    """The levels of the log, by logger."""

    def levels(self) -> Mapping[str, str]:
        """Return the level of the sidecar, and those of parts that have one of their own."""

    def set_level(self, name: str, level: str) -> None:
        """Change one.

        Raises:
            ValueError: there is no such logger or level.
        """


class LoggerRoutes:
    """The routes over the levels of a log."""

    def __init__(self, log: LogLevels) -> None:
        self._log = log

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        return [web.get("/v1.0/loggers", self._shown), web.put("/v1.0/loggers/{name}", self._change)]

    async def _shown(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"loggers": dict(self._log.levels())})

    async def _change(self, request: web.Request) -> web.StreamResponse:
        try:
            wanted = await request.json()
            level = wanted.get("level") if isinstance(wanted, dict) else None
            if not isinstance(level, str):
                raise ValueError('write {"level": "debug"}, or another level')
            self._log.set_level(request.match_info["name"], level)
        except web.HTTPRequestEntityTooLarge:
            return error(413, _REFUSED, "the body is too large")
        except (ValueError, RecursionError, LookupError) as wrong:  # a charset that is none is a LookupError
            said = "the body is not JSON" if isinstance(wrong, json.JSONDecodeError) else str(wrong)
            return error(400, _REFUSED, said[:_SHOWN_CHARACTERS])
        return await self._shown(request)
