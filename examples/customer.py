"""The customer of the example in containers: places the order, then prints how it went.

Exit code 0 only if the result is right. DEMO_LOG names the file in which the apps note what they do.
"""

import os
import time
from pathlib import Path

import report
from orders.place import ORDER, place
from rich.console import Console


def main() -> None:
    log = Path(os.environ["DEMO_LOG"])
    began = time.time()
    result = place(ORDER)
    seconds = time.time() - began
    notes = [note for note in report.read_notes(log) if note.when >= began]  # the log may hold earlier orders
    wrong = report.differences(result, notes)
    report.show(Console(), notes, result, wrong, seconds)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
