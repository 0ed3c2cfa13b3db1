"""Plays the scenarios against Microsoft's own in-memory backend, to see that they ask for what the SDK promises.

PYTHONPATH=../python_shared ../../../build/sdks/python-microsoft/venv/bin/python reference.py run SCENARIO...
"""

from app import at
from durabletask.testing import create_test_backend
from player import main

_PORT = 50551

if __name__ == "__main__":
    create_test_backend(port=_PORT)
    main(at(f"localhost:{_PORT}"))
