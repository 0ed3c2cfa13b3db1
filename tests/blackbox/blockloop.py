"""Runs a sidecar as `sidecar run` does; SIGUSR1 holds its event loop for so many seconds as BLOCKLOOP says."""

import os
import signal
import time

from sidecar.cli.main import main

if __name__ == "__main__":
    seconds = float(os.environ["BLOCKLOOP"])
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(seconds))
    raise SystemExit(main())
