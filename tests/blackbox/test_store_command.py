"""`sidecar store check|backup|restore` as a person uses it, beside a sidecar that serves and without one."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.blackbox.base_load import BaseLoad
from tests.blackbox.harness import ROOT, Sidecar
from tests.blackbox.test_store_faults import database, starting


def command(
    sidecar: Sidecar, *words: str, app: str = "", environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    options = ["--app-id", app or sidecar.app, "--data-dir", str(sidecar.data), "--grpc-port", str(sidecar.port)]
    line = [sys.executable, "-m", "sidecar", "store", *words, *options]
    environ = {**os.environ, **environment}
    return subprocess.run(line, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_backup_under_load_is_restored_and_everything_goes_on(own_sidecar: Sidecar) -> None:
    """What was started before the backup is there after the restore, and goes on from where it was."""
    with BaseLoad(own_sidecar.start().port) as load:
        load.and_then(5)
        with starting(load):
            for _ in range(8):
                assert command(own_sidecar, "check").stdout == "sidecar: the store is whole\n"
            made = command(own_sidecar, "backup", "--name", "one.db")
        assert made.returncode == 0, made.stderr
        before = {one: load.accepted[one] for one in list(load.accepted)[:5]}
        backup = own_sidecar.data / "backups" / "one.db"
        assert str(backup) in made.stdout
        refused = command(own_sidecar, "restore", str(backup))
        assert refused.returncode == 2
        assert "stop it first" in refused.stderr
        load.all_is_right()
        own_sidecar.stop()
        done = command(own_sidecar, "restore", str(backup))
        assert done.returncode == 0, done.stderr
        own_sidecar.start()
        load.accepted = before
        load.all_is_right()
        load.and_then(10)
    own_sidecar.stop()
    assert command(own_sidecar, "check").returncode == 0
    assert command(own_sidecar, "backup").returncode == 0


def test_what_is_wrong_is_named_with_what_to_do(own_sidecar: Sidecar, tmp_path: Path) -> None:
    with BaseLoad(own_sidecar.start().port) as load:
        load.and_then(5)
    port, own_sidecar.port = own_sidecar.port, 1
    silent = command(own_sidecar, "check")
    assert (silent.returncode, "--grpc-port" in silent.stderr) == (2, True)
    own_sidecar.port = port
    for name in ("../evil.db", "/tmp/evil.db"):
        refused = command(own_sidecar, "backup", "--name", name)
        assert (refused.returncode, "not a name of a file" in refused.stderr) == (2, True)
    own_sidecar.stop()
    other = command(own_sidecar, "check", app="ml")
    assert (other.returncode, "there is no store" in other.stderr) == (2, True)
    file = database(own_sidecar)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    damaged = command(own_sidecar, "check")
    assert damaged.returncode == 1
    assert damaged.stderr.startswith("sidecar: ")
    assert command(own_sidecar, "restore", str(file)).returncode == 2
    good = tmp_path / "good.db"
    good.write_bytes(whole)
    assert command(own_sidecar, "restore", str(good)).returncode == 0
    own_sidecar.start()
    assert own_sidecar.metadata()


@pytest.mark.parametrize("tls", [False, True])
def test_a_sidecar_that_asks_for_a_token_is_shown_it(own_sidecar: Sidecar, tmp_path: Path, tls: bool) -> None:
    token = tmp_path / "token"
    token.write_text("old-one\nnew-one\n")
    own_sidecar.options += ["--api-token-file", str(token)]
    environment = {}
    if tls:
        certs = tmp_path / "certs"
        subprocess.run([sys.executable, "-m", "sidecar", "dev-ca", "--out", str(certs), "orders"], check=True, cwd=ROOT)
        own_sidecar.options += ["--app-cert", str(certs / "orders.crt"), "--app-key", str(certs / "orders.key")]
        environment["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = str(certs / "ca.crt")
    own_sidecar.start()
    refused = command(own_sidecar, "check", environment=environment)
    assert refused.returncode == 2
    done = command(own_sidecar, "check", *own_sidecar.options, environment=environment)
    assert (done.returncode, done.stdout) == (0, "sidecar: the store is whole\n"), done.stderr


def test_the_wrong_sidecar_at_a_port_is_not_asked(own_sidecar: Sidecar, tmp_path: Path) -> None:
    own_sidecar.start()
    second = Sidecar("ml", tmp_path)
    try:
        second.start()
        port, own_sidecar.port = own_sidecar.port, second.port
        refused = command(own_sidecar, "backup")
        own_sidecar.port = port
        assert (refused.returncode, "this is the sidecar of app 'ml'" in refused.stderr) == (2, True)
    finally:
        second.kill9()
    with pytest.raises(FileNotFoundError):
        next((second.data / "backups").iterdir())
