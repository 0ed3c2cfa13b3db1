"""TLS connections that come in the same moment, also while the certificate is renewed, do not kill the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Injected

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("renew", [False, True])
@pytest.mark.fault(41, "Many TLS connections in one moment, and a renewal among them, harm nothing")
def test_many_handshakes_at_once_are_answered(mutual: bool, renew: bool, tmp_path: Path, injected: Injected) -> None:
    """Of six starts without this care two died, of a configuration that was freed under a handshake."""
    flags = [flag for flag, given in (("--mutual", mutual), ("--renew", renew)) if given]
    seconds, starts = ("8", 1) if renew else ("0", 6)
    for _ in range(starts):
        command = [sys.executable, "-m", "tests.edge.grpc_aio.tls_storm", str(tmp_path), "60", seconds, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2_000:]
        shaken, tries = map(int, done.stdout.split()[-2:])
        assert tries < 2 * shaken, done.stderr[-2_000:]
        injected(shaken, "handshakes at once")
