"""The commands that look at workflows: list, get, history, tree, wait."""

from sidecar.actors.clock import Clock
from sidecar.cli import screen
from sidecar.cli.exits import Exit, Failure
from sidecar.cli.forms import Form
from sidecar.cli.operate.client import Client, asking
from sidecar.cli.operate.filters import Filter, found
from sidecar.cli.progress import progress
from sidecar.cli.show import history, instances, tree, words
from sidecar.schema import taskhub_pb2 as pb

_MOST_ROWS = 1_000  # of a table, unless a limit is given


def listing(client: Client, wanted: Filter, form: Form, limit: int | None) -> None:
    """Write the workflows that are meant; `limit` 0: all, None: all as data, the first as a table."""
    most = (0 if form.is_data else _MOST_ROWS) if limit is None else limit
    states, more = asking(client, lambda reached: _found(reached, wanted, most))
    now = Clock().now()
    if form.is_data:
        screen.write([instances.data(one, client.home) for one in states], form)
    elif not states:
        screen.note("no workflow fits" if wanted != Filter() else f"app '{client.home.app}' has no workflows")
    elif form is Form.WIDE:
        screen.show(instances.wide(states, client.home, now, screen.width()))
    else:
        screen.show(instances.short(states, now, screen.width()))
    if more:
        hint = "name fewer with --filter-name, --filter-status and --filter-max-age, or give --limit 0 for all"
        screen.note(f"these are the oldest {len(states):,}, and there are more: {hint}")


async def _found(client: Client, wanted: Filter, most: int) -> tuple[list[pb.InstanceState], bool]:
    states: list[pb.InstanceState] = []
    with progress("workflows") as told:
        async for state in found(client, wanted, Clock().now()):
            if most and len(states) == most:
                return states, True
            states.append(state)
            told(len(states), None)
    return states, False


def single(client: Client, instance_id: str, form: Form) -> None:
    """Write all of one workflow."""
    _write(client, asking(client, lambda reached: reached.get(instance_id)), form)


def _write(client: Client, state: pb.InstanceState, form: Form) -> None:
    if form.is_data:
        screen.write(instances.whole_data(state, client.home), form)
    else:
        screen.show(instances.single(state, client.home, Clock().now(), whole=form is Form.WIDE))


def past(client: Client, instance_id: str, form: Form) -> None:
    """Write the history of a workflow: as a timeline, as a table of events (wide), or as data."""

    async def ask(reached: Client) -> tuple[pb.InstanceState, list[pb.HistoryEvent]]:
        return await reached.get(instance_id, payloads=False), list(await reached.history(instance_id))

    state, log = asking(client, ask)
    now = Clock().now()
    if form.is_data:
        screen.write(history.data(log, client.home), form)
        return
    marks = history.ASCII if screen.in_ascii() else history.DRAWN
    width = screen.width()
    if form is Form.WIDE:
        below = history.listed(log, client.home, width)
    else:
        below = history.timeline(log, client.home, now, width, marks)
    screen.show(history.headed(state, instances.status(state), now, below))


def whole(client: Client, instance_id: str, depth: int, form: Form) -> None:
    """Write a workflow with its children over all apps, and what each part waits for."""
    found = asking(client, lambda reached: reached.tree(instance_id, depth))
    if form.is_data:
        screen.write(tree.data(found), form)
    else:
        screen.show(tree.drawn(found, Clock().now()))


def wait(client: Client, instance_id: str, *, begun: bool, seconds: float | None, form: Form) -> None:
    """Wait until a workflow has ended, or `begun`, and write it. Raises Failure: it has ended badly, or not in time."""

    async def ask(reached: Client) -> pb.InstanceState:
        await reached.get(instance_id, payloads=False)
        try:
            return await reached.wait(instance_id, ended=not begun, seconds=seconds)
        except Failure as failure:
            if failure.code is not Exit.TIME_OVER:
                raise
            state = await reached.get(instance_id, payloads=False)
            why = instances.why(state.causes, Clock().now())
            text = (
                f"workflow '{instance_id}' is {instances.status(state)} after {words.span(round((seconds or 0) * 1e6))}"
            )
            hint = (
                f"it waits because {why}" if why else f"`sidecar workflow tree {instance_id}` shows what it waits for"
            )
            raise Failure(Exit.TIME_OVER, text, hint) from failure

    state = asking(client, ask)
    _write(client, state, form)
    if not begun and instances.status(state) != "COMPLETED":
        raise Failure(Exit.NO)
