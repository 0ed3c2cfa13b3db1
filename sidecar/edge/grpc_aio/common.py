"""What the servers and the channels of the transport on grpc.aio share."""

import asyncio
from typing import Any, cast

import grpc

MIB = 1024 * 1024
MAX_RECEIVE_BYTES = 64 * MIB
KEEPALIVE_SECONDS = 9.0
EOF = cast(Any, grpc.aio.EOF)

COMMON_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it a ping may go unanswered for a minute
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


def this_task_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
