"""The settings that are in force, and where each comes from. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from sidecar.cli.show.tables import Column, table
from sidecar.config import settings as config
from sidecar.config.settings import Resolved


def listed(resolved: Resolved, width: int | None) -> RenderableType:
    """Return a table of all settings."""
    columns = (Column("SETTING", 16), Column("VALUE", 16, True), Column("SOURCE", 16, True))
    rows = [(name, config.shown(getattr(resolved.settings, name)), source) for name, source in resolved.sources.items()]
    return table(columns, rows, width)


def data(resolved: Resolved) -> dict[str, Any]:
    """Return value and source of each, for programs."""
    rows = {
        name: {"value": getattr(resolved.settings, name), "source": source} for name, source in resolved.sources.items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(rows, default=_plain))
    return plain


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)
