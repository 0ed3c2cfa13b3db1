"""Entry point of the `daprd` command.

Dapr's tools ask each `daprd` for its version, without a time limit, before they do anything: that is answered before
the sidecar is imported.
"""

import os
import sys
from collections.abc import Sequence

from sidecar.daprd import flags

VERSION = "1.18.0"
"""The version of Dapr whose tools are served: they behave by it."""

_HELP = """The workflow sidecar, with the flags of Dapr's daprd, for tools that start one.

  daprd --app-id ID [--dapr-grpc-port PORT] [--dapr-http-port PORT] [--resources-path DIR] [--config FILE] ...

  --version, --build-info    print versions, and end

Other flags of daprd are taken too. Variables SIDECAR_... set what they leave open (`sidecar run --help` lists them).
"""
_WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, by default with the arguments of this process, and return its exit code.

    0 is an end that was asked for; 2 a start that has failed, with the reason as the last line on stderr.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong in gRPC comes as errors of calls too
    try:
        given = flags.parse(sys.argv[1:] if arguments is None else arguments)
        if said := _said(given):
            sys.stdout.write(said)
            return 0
    except ValueError as error:
        return _refused(error)
    from sidecar.config.settings import ConfigError, StartError  # noqa: PLC0415 - the version must cost nothing
    from sidecar.daprd import serving  # noqa: PLC0415 - as above

    try:
        return serving.run(given, os.environ)
    except (ConfigError, StartError) as error:
        return _refused(error)


def _said(given: flags.Given) -> str:
    """Return what is printed instead of a start, "" for nothing. Raises ValueError."""
    if given.on("version"):
        return f"{VERSION}\n"
    if given.on("build-info"):
        from sidecar.config.settings import version  # noqa: PLC0415 - as above

        return f"Version: {VERSION}\nSidecar: multiapp-workflow-sidecar {version()}\nPython: {sys.version.split()[0]}\n"
    return _HELP if given.on("help") else ""


def _refused(error: Exception) -> int:
    sys.stderr.write(f"daprd: {error}\n")
    sys.stderr.flush()
    return _WRONG


if __name__ == "__main__":
    sys.exit(main())
