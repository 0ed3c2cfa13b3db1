"""A workflow with its children over all apps, and what each part waits for. Pure."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from sidecar.cli.show import words
from sidecar.cli.show.instances import STYLES, cause, cause_data
from sidecar.schema import admin_pb2 as pb

_ENDS_IN = "timer"  # the one kind whose time is when it ends
_LONGEST = 200


def drawn(node: pb.TreeNode, now: int) -> RenderableType:
    """Return the tree."""
    return _drawn(node, now, Tree(_title(node, "", now)), node.app_id)


def _drawn(node: pb.TreeNode, now: int, tree: Tree, app: str) -> Tree:
    if node.error:
        tree.add(Text(words.cut(node.error, _LONGEST), style="red"))
    for wait in node.waits:
        tree.add(_wait(wait, now, app))
    for child in node.children:
        _drawn(child, now, tree.add(_title(child, app, now)), child.app_id)
    return tree


def _title(node: pb.TreeNode, parent_app: str, now: int) -> Text:
    title = Text(words.clean(node.instance_id), style="bold")
    if node.name:
        title.append(f"  {words.clean(node.name)}", style="not bold")
    if node.status:
        title.append(f"  {node.status}", style=f"not bold {STYLES.get(node.status, '')}")
    if node.app_id != parent_app:
        title.append(f"  in app {node.app_id}", style="not bold magenta")
    if node.HasField("created"):
        end = words.micros(node.completed) if node.HasField("completed") else now
        took = words.span(end - words.micros(node.created))
        title.append(f"  {'took' if node.HasField('completed') else 'for'} {took}", style="not bold dim")
    return title


def _wait(wait: pb.Wait, now: int, app: str) -> RenderableType:
    line = Text("waits for ")
    line.append(f"{wait.kind} {words.clean(wait.name)}".strip(), style="bold")
    if wait.app_id and wait.app_id != app:
        line.append(f" in app {wait.app_id}", style="magenta")
    line.append(f": {wait.state}{_since(wait, now)}")
    parts: list[Text] = [line]
    if wait.HasField("cause"):
        parts.append(Text(cause(wait.cause, now), style="yellow"))
        parts.append(Text(f"→ {words.clean(wait.cause.advice)}"))
    elif wait.error:
        parts.append(Text(words.cut(wait.error, _LONGEST), style="yellow"))
    if wait.crashes:
        parts.append(Text(f"it has cost {words.count(wait.crashes, 'worker')}", style="red"))
    return Group(*parts)


def _since(wait: pb.Wait, now: int) -> str:
    if not wait.HasField("since"):
        return ""
    moment = words.micros(wait.since)
    if wait.kind == _ENDS_IN or moment > now:
        return f", until {words.local(wait.since)} ({words.ago(moment, now)})"
    return f", for {words.span(now - moment)}"


def data(node: pb.TreeNode) -> dict[str, Any]:
    """Return the tree for programs."""
    return {
        "namespace": node.namespace,
        "appID": node.app_id,
        "instanceID": node.instance_id,
        "name": node.name,
        "runtimeStatus": node.status,
        "created": words.iso(node.created) if node.HasField("created") else None,
        "completed": words.iso(node.completed) if node.HasField("completed") else None,
        "error": node.error,
        "waits": [_wait_data(wait) for wait in node.waits],
        "children": [data(child) for child in node.children],
    }


def _wait_data(wait: pb.Wait) -> dict[str, Any]:
    return {
        "kind": wait.kind,
        "name": wait.name,
        "appID": wait.app_id,
        "taskID": wait.task_id,
        "state": wait.state,
        "since": words.iso(wait.since) if wait.HasField("since") else None,
        "error": wait.error,
        "crashes": wait.crashes,
        "cause": cause_data(wait.cause) if wait.HasField("cause") else None,
    }
