"""The same program with the client and the worker that Microsoft has for its Durable Task Scheduler."""

import os
from typing import Any

from app import Microsoft
from durabletask.azuremanaged.client import DurableTaskSchedulerClient
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker
from player import main

if __name__ == "__main__":
    where: dict[str, Any] = {
        "host_address": f"{os.environ['SIDECAR_HOST']}:{os.environ['SIDECAR_PORT']}",
        "taskhub": "default",
        "token_credential": None,
        "secure_channel": False,
    }
    main(Microsoft(DurableTaskSchedulerClient(**where), lambda: DurableTaskSchedulerWorker(**where)))
