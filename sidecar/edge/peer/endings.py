"""What a link to an address has failed of or ended with, in words."""

import asyncio

from sidecar.edge.transport.ports import Closed, DuplexCall, Refused, StatusCode

_ENDING_SECONDS = 1.0  # how long to wait for the reason of an end that has come
_NO_PEER_PORT = "a gRPC server answers that is no sidecar's peer port: is it the port for apps?"


async def why_ended(call: DuplexCall, error: Exception, seconds: float) -> str:
    """Return what a link to an address has failed of; an answer was waited for so many seconds.

    If it was closed, how the call has ended says more.
    """
    if isinstance(error, Closed):
        try:
            async with asyncio.timeout(_ENDING_SECONDS):
                await call.receive()
        except TimeoutError:
            return str(error)
        except Refused as refused:
            return await why_ended(call, refused, seconds)
    if isinstance(error, Refused):
        return _NO_PEER_PORT if error.status is StatusCode.UNIMPLEMENTED else error.message
    return str(error) or f"no answer within {seconds:.0f} s"
