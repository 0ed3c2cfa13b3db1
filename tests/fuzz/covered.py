"""`run` with the sidecar's code instrumented, for which it must be imported under the eyes of the library."""

import sys

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["sidecar"]):
    from tests.fuzz import run

if __name__ == "__main__":
    run.main(sys.argv[1:])
