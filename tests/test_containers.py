"""The container files, as far as they can be checked where no container engine runs.

`docker compose config` where there is such a command; a Dockerfile linter; the rules that matter here, read
from the files; and the commands inside them, tried out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli import health

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker" / "compose.yaml"
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "docker" / "Dockerfile.app"]
APPS = ["orders", "ml", "logistics"]
USER = "65532:65532"

Service = dict[str, Any]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: name and arguments, comments left out, continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest) for name, rest in pairs]


def arguments(dockerfile: Path, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(dockerfile) if instruction == name]


def final_stage(dockerfile: Path) -> list[tuple[str, str]]:
    steps = instructions(dockerfile)
    last = max(index for index, (name, _) in enumerate(steps) if name == "FROM")
    return steps[last:]


def shell_commands(dockerfile: Path) -> Iterator[str]:
    for step in arguments(dockerfile, "RUN"):
        yield from (command.strip() for command in step.split("&&"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Service]:
    return compose["services"]


def sidecar(*args: str) -> str:
    """What the `sidecar` command of this environment prints."""
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *args], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout


# --- Dockerfiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_finds_nothing(dockerfile: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", dockerfile], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_base_images_are_pinned(dockerfile: Path) -> None:
    values = dict(argument.split("=", 1) for argument in arguments(dockerfile, "ARG") if "=" in argument)
    stages: set[str] = set()
    for base in arguments(dockerfile, "FROM"):
        image, *name = re.split(r"\s+AS\s+", base, flags=re.IGNORECASE)
        image = re.sub(r"\$\{(\w+)\}", lambda match: values[match.group(1)], image)
        pinned = re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", image)
        assert image in stages or pinned, image
        stages.update(name)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_nothing_comes_from_the_network_but_what_a_lock_names(dockerfile: Path) -> None:
    assert not arguments(dockerfile, "ADD")
    for command in shell_commands(dockerfile):
        assert not re.search(r"\b(curl|wget|apt-get|apk|git)\b", command), command
        if re.search(r"\bpip\b.*\binstall\b", command):
            built_here = "--no-deps" in command and "--no-index" in command
            assert "--require-hashes" in command or built_here, command


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_final_stage_runs_as_nobody_and_has_no_build_tools(dockerfile: Path) -> None:
    steps = final_stage(dockerfile)
    assert [rest for name, rest in steps if name == "USER"] == [USER]
    names = [name for name, _ in steps]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("COPY", "RUN"))
    assert not [rest for name, rest in steps if name == "RUN" and "pip" in rest]


def test_the_sidecar_image_asks_itself_for_its_health_and_runs_by_default() -> None:
    steps = dict(final_stage(ROOT / "Dockerfile"))
    assert json.loads(steps["HEALTHCHECK"].split("CMD", 1)[1]) == ["sidecar", "health"]
    [timeout] = re.findall(r"--timeout=(\d+)s", steps["HEALTHCHECK"])
    assert int(timeout) > health.TIMEOUT_SECONDS, "the check itself says what is wrong"
    assert json.loads(steps["ENTRYPOINT"]) == ["sidecar"]
    assert json.loads(steps["CMD"]) == ["run"]
    assert steps["VOLUME"] == "/data"
    assert set(steps["EXPOSE"].split()) == {"50001", "4001", "3500", "50002"}
    assert "SIDECAR_DATA_DIR=/data" in steps["ENV"]


def test_starts_in_the_sidecar_image_compile_nothing_of_the_standard_library() -> None:
    commands = [rest for name, rest in final_stage(ROOT / "Dockerfile") if name == "RUN"]
    assert any(command.startswith("python -m compileall") for command in commands)


def test_commands_and_settings_of_the_sidecar_image_exist() -> None:
    sidecar("health", "--help")
    known = sidecar("run", "--help")
    for setting in re.findall(r"SIDECAR_(\w+)=", dict(final_stage(ROOT / "Dockerfile"))["ENV"]):
        assert f"--{setting.lower().replace('_', '-')} " in known


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_gets_through_dockerignore(dockerfile: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [rest.split() for rest in arguments(dockerfile, "COPY") if not rest.startswith("--from")]
    for *sources, _target in copies:
        for source in sources:
            for sdk in ("microsoft", "dapr"):
                path = source.replace("${SDK}", sdk)
                assert (ROOT / path).exists(), path
                assert any(Path(path).match(one.rstrip("/")) for one in allowed), path


@pytest.mark.slow
def test_the_files_that_the_builder_copies_make_a_complete_wheel(tmp_path: Path) -> None:
    skip = shutil.ignore_patterns("__pycache__")
    for *sources, target in (rest.split() for rest in arguments(ROOT / "Dockerfile", "COPY")):
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, ignore=skip)
            elif not source.startswith(("-", "/")):
                shutil.copy(ROOT / source, tmp_path / target)
    (command,) = [step for step in shell_commands(ROOT / "Dockerfile") if step.startswith("pip wheel")]
    command = command.replace("/wheels", str(tmp_path / "wheels"))
    subprocess.run([sys.executable, "-m", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("sidecar/")}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "sidecar").rglob("*") if path.is_file()}
    assert packed == {path for path in there if "__pycache__" not in path}


# --- compose ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compose_accepts_the_file(services: dict[str, Service]) -> None:
    """By the command itself where there is one; else the file has at least been read, with its anchors."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            done = subprocess.run(
                [*command, "-f", COMPOSE, "config", "-q"], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    of_apps = {f"{app}{part}" for app in APPS for part in ("", "-net", "-sidecar")}
    assert services.keys() == of_apps | {"certs", "customer"}


@pytest.mark.parametrize("file", [COMPOSE, ROOT / "README.md"], ids=lambda path: path.name)
def test_the_documented_command_is_not_ended_by_a_service_that_ends_first(
    services: dict[str, Service], file: Path
) -> None:
    """With --exit-code-from any container that is looked at ends all; without names these are those of all services."""
    text = " ".join(file.read_text().replace("\n#", "\n").split())
    [(waited_for, looked_at)] = re.findall(r"compose\.yaml up --build --exit-code-from (\w+) (\w+)", text)
    one_shot = {name for service in services.values() for name, how in service.get("depends_on", {}).items()
                if how["condition"] == "service_completed_successfully"}  # fmt: skip
    assert one_shot, "else the command needs no names"
    assert looked_at == waited_for == "customer"


def test_every_container_is_confined(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["tmpfs"] == ["/tmp"], name
        assert not service.keys() & {"privileged", "user", "ports", "cap_add", "devices", "pid", "ipc"}, name


@pytest.mark.parametrize("app", APPS)
def test_an_app_and_its_sidecar_share_the_network_of_an_idle_service(services: dict[str, Service], app: str) -> None:
    net = services[f"{app}-net"]
    assert net["networks"] == {"peers": {"aliases": [f"{app}-sidecar"]}}
    assert net["entrypoint"] == ["sleep", "infinity"]
    assert net["image"] == services[f"{app}-sidecar"]["image"]
    for name in (app, f"{app}-sidecar"):
        assert services[name]["network_mode"] == f"service:{app}-net"
        assert "networks" not in services[name]
    assert services[app]["depends_on"] == {f"{app}-sidecar": {"condition": "service_healthy"}}


@pytest.mark.parametrize("app", APPS)
def test_a_sidecar_knows_the_others_and_opens_only_its_peer_port(services: dict[str, Service], app: str) -> None:
    service = services[f"{app}-sidecar"]
    options = service["command"][1:]
    assert service["command"][0] == "run"
    assert f"--app-id={app}" in options
    certificate = {f"--peer-cert=/certs/{app}.crt", f"--peer-key=/certs/{app}.key", "--peer-ca=/certs/ca.crt"}
    assert {"--peer-host=0.0.0.0", *certificate} <= set(options)
    assert "--insecure-peers" not in options
    peers = {f"--peer={other}={other}-sidecar:50002" for other in APPS if other != app}
    assert {option for option in options if option.startswith("--peer=")} == peers
    assert not [option for option in options if re.match(r"--(grpc|http)-host", option)]
    assert service["volumes"] == [f"{app}-data:/data", "certs:/certs:ro"]
    assert service["depends_on"]["certs"] == {"condition": "service_completed_successfully"}


def test_certificates_are_made_for_every_app_without_a_network(services: dict[str, Service], tmp_path: Path) -> None:
    service = services["certs"]
    assert (service["network_mode"], service["volumes"]) == ("none", ["certs:/certs"])
    sidecar(*(str(tmp_path) if word == "/certs" else word for word in service["command"]))
    assert {file.name for file in tmp_path.glob("*.crt")} == {"ca.crt", *(f"{app}.crt" for app in APPS)}


def test_the_options_of_the_sidecars_exist(services: dict[str, Service]) -> None:
    known = sidecar("run", "--help")
    for app in APPS:
        for option in services[f"{app}-sidecar"]["command"][1:]:
            assert re.search(rf"{re.escape(option.split('=')[0])}\b", known), option


@pytest.mark.parametrize("name", [*APPS, "customer"])
def test_an_app_runs_a_module_of_the_examples_with_its_sdk(services: dict[str, Service], name: str) -> None:
    service = services[name]
    (module,) = service["command"]
    assert (ROOT / "examples" / (module.replace(".", "/") + ".py")).is_file()
    sdk = service["build"]["args"]["SDK"]
    assert sdk == ("microsoft" if name == "ml" else "dapr")
    assert service["image"].endswith(f"-{sdk}:local")
    assert service["environment"]["DEMO_LOG"].startswith("/story/")
    assert service["volumes"] == ["story:/story"]


def test_what_services_refer_to_is_declared(compose: dict[str, Any], services: dict[str, Service]) -> None:
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert used == compose["volumes"].keys()
    assert compose["networks"] == {"peers": {"internal": True}}
    for service in services.values():
        assert service.get("depends_on", {}).keys() <= services.keys()
        assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
