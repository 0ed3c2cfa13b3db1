"""What the three example apps share: a note of each piece of work, and waiting for the end.

Nothing here has to do with workflows. The notes are how the demo knows which app did what and when.
"""

import json
import os
import signal
import threading
import time


def note(app: str, what: str) -> None:
    """Append one line to the file named by DEMO_LOG: who did what, when, in which process."""
    path = os.environ.get("DEMO_LOG")
    if not path:
        return
    line = json.dumps({"app": app, "what": what, "when": time.time(), "pid": os.getpid()})
    with open(path, "a", encoding="utf-8") as log:  # short writes in append mode: lines of apps never mix
        log.write(line + "\n")


def wait_for_stop() -> None:
    """Return when the process is asked to end (Ctrl-C or SIGTERM)."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
