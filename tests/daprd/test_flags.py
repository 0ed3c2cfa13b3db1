"""The command line of `daprd`, in the forms in which tools write it."""

import pytest

from sidecar.daprd import flags

# What the `dapr` CLI gives a daprd, with nothing asked for.
OF_THE_CLI = [
    *("--config", "/home/someone/.dapr/config.yaml", "--app-protocol", "http", "--app-max-concurrency", "-1"),
    *("--placement-host-address", "localhost:50005", "--components-path", "/home/someone/.dapr/components"),
    *("--max-body-size", "4Mi", "--read-buffer-size", "4Ki", "--scheduler-host-address", "localhost:50006"),
    *("--app-id", "orders", "--app-port", "0", "--dapr-http-port", "3501", "--dapr-grpc-port", "50011"),
    *("--profile-port", "-1", "--metrics-port", "9091", "--dapr-internal-grpc-port", "50012", "--log-level", "info"),
]
# What containers of tests give.
OF_CONTAINERS = [
    *("-app-id", "orders", "-dapr-http-port", "3500", "-dapr-grpc-port", "50001", "-log-level", "info"),
    *("-resources-path", "/components", "-app-port", "", "-app-channel-address", "host.docker.internal"),
    *("-app-protocol", "http", "-placement-host-address", "", "-scheduler-host-address", "scheduler:51005"),
]


@pytest.mark.parametrize(
    ("arguments", "name", "values"),
    [
        (["--app-id", "a"], "app-id", ["a"]),
        (["--app-id=a"], "app-id", ["a"]),
        (["-app-id", "a"], "app-id", ["a"]),
        (["-app-id=a"], "app-id", ["a"]),
        (["--app-id", "-a"], "app-id", ["-a"]),
        (["--app-id", "--app-id"], "app-id", ["--app-id"]),
        (["--app-id", ""], "app-id", [""]),
        (["--app-id="], "app-id", [""]),
        (["--app-id=a=b"], "app-id", ["a=b"]),
        (["--app-id"], "app-id", [""]),
        (["--app-id", "a", "--app-id", "b"], "app-id", ["a", "b"]),
        (["--profile-port", "-1"], "profile-port", ["-1"]),
        (["--resources-path", "a", "-resources-path=b"], "resources-path", ["a", "b"]),
        (["--version"], "version", ["true"]),
        (["--version=false"], "version", ["false"]),
        (["--log-as-json", "--app-id", "a"], "log-as-json", ["true"]),
        (["--enable-mtls", "--app-id", "a"], "app-id", ["a"]),
        (["--enable-something-new", "--app-id", "a"], "app-id", ["a"]),
        (["--something-new", "7", "--app-id", "a"], "app-id", ["a"]),
        (["--something-new", "-7", "--app-id", "a"], "app-id", ["a"]),
        (["--something-new", "--app-id", "a"], "app-id", ["a"]),
        (["--something-new=-", "--app-id", "a"], "app-id", ["a"]),
        (["stray", "--app-id", "a"], "app-id", ["a"]),
        (["", "localhost:50006", "--app-id", "a"], "app-id", ["a"]),
    ],
)
def test_a_flag_is_read_in_every_form(arguments: list[str], name: str, values: list[str]) -> None:
    assert flags.parse(arguments).values[name] == tuple(values)


@pytest.mark.parametrize("arguments", [OF_THE_CLI, OF_CONTAINERS])
def test_what_tools_give_is_known(arguments: list[str]) -> None:
    given = flags.parse(arguments)
    assert given.unknown == ()
    assert given.text("app-id") == "orders"


def test_what_is_not_known_is_named_once_without_values() -> None:
    given = flags.parse(["--new", "secret", "-new", "other", "--enable-new", "stray", "text", "--app-id", "a"])
    assert given.unknown == ("--new", "--enable-new", "an argument that is no flag")


def test_a_list_may_be_given_in_parts_and_with_commas() -> None:
    given = flags.parse(["--resources-path", "a,b", "--resources-path", "", "--resources-path", "c"])
    assert given.texts("resources-path") == ["a", "b", "c"]
    assert given.texts("config") == []


@pytest.mark.parametrize(("text", "on"), [("", True), ("=true", True), ("=1", True), ("=F", False), ("=false", False)])
def test_a_switch_may_have_a_value(text: str, on: bool) -> None:
    assert flags.parse([f"--log-as-json{text}"]).on("log-as-json") is on
    assert not flags.parse([]).on("log-as-json")


def test_a_switch_with_another_value_is_refused() -> None:
    with pytest.raises(ValueError, match="--log-as-json: 'maybe' is neither true nor false"):
        flags.parse(["--log-as-json=maybe"]).on("log-as-json")
