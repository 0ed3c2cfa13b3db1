"""Entry point of the `sidecar` command and of `python -m sidecar`."""

import sys

from sidecar.cli import main as cli


def main() -> None:
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
