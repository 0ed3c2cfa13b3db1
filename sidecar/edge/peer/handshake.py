"""How two sidecars find out, before anything else, that each is who the other means. Pure."""

from sidecar.core.errors import MalformedError
from sidecar.core.identity import AppIdentity
from sidecar.core.names import invalid_app_id
from sidecar.peers.limits import Limit
from sidecar.schema import peer_pb2 as pb

PROTOCOL = 1
SMALLEST_LIMIT = 64 * 1024  # bytes that every sidecar receives in one frame: the least that can be set
_LONGEST_ID = 100


def hello(me: AppIdentity, store: str, process: str, receives: int, seen: tuple[str, int] = ("", 0)) -> bytes:
    """Return the frame that a link begins with; `store` and `process` identify this side's store and its start.

    `receives` is how many bytes the largest frame has that this side can receive; `seen` is the store of the other side
    that was seen last, and its highest order number.
    """
    greeting = pb.Hello(protocol=PROTOCOL, namespace=me.namespace, app_id=me.app, store_id=store, process_id=process)
    greeting.receives = receives
    greeting.seen_store, greeting.seen = seen
    return pb.Frame(hello=greeting).SerializeToString()


def read_hello(message: bytes | None) -> pb.Hello:
    if message is None:
        raise MalformedError("the peer said nothing")
    frame = pb.Frame.FromString(message)
    if frame.WhichOneof("frame") == "refused":
        raise MalformedError(f"the peer refused: {frame.refused[:500]}")
    if frame.WhichOneof("frame") != "hello":
        raise MalformedError("the peer did not begin with a hello")
    return frame.hello


def check_hello(me: AppIdentity, hello: pb.Hello, expected: str | None) -> None:
    """Refuse a peer that is not who it should be, before any payload goes either way."""
    wrong = invalid_app_id(hello.app_id)
    if wrong:
        raise MalformedError(wrong)
    longest = max(len(hello.store_id), len(hello.process_id))
    if longest > _LONGEST_ID:  # that of its store is stored with every message of that peer
        raise MalformedError(f"the peer's store or process has a name of {longest} characters")
    if hello.protocol < 1 or not hello.store_id:
        raise MalformedError("the peer speaks no version of the peer protocol that is known here")
    if 0 < hello.receives < SMALLEST_LIMIT:
        raise MalformedError(f"the peer receives at most {hello.receives} bytes; at least {SMALLEST_LIMIT} are needed")
    if hello.namespace != me.namespace:
        raise MalformedError(f"the peer is of namespace '{hello.namespace[:64]}', this is '{me.namespace}'")
    if expected is not None and hello.app_id != expected:
        raise MalformedError(f"the peer at this address is app '{hello.app_id}', not '{expected}'")
    if hello.app_id.lower() == me.app.lower():
        raise MalformedError(f"the peer says that it is app '{hello.app_id}' too: two sidecars have one app ID")


def limit_of(me: AppIdentity, receives: int, hello: pb.Hello) -> Limit:
    """Return what a link carries either way: what the side receives that receives less; older ones do not say it."""
    if 0 < hello.receives < receives:
        return Limit(hello.receives, hello.app_id)
    return Limit(receives, me.app)
