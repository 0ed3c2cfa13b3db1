"""Entry point of the `sidecar` command and of `python -m sidecar`."""

import sys

from sidecar.cli import health


def main() -> None:
    if sys.argv[1:] == ["health"]:
        health.main()
    from sidecar.cli import main as cli  # noqa: PLC0415 - a health check must cost nothing

    sys.exit(cli.main())


if __name__ == "__main__":
    main()
