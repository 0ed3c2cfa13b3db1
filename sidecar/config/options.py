"""The options of `sidecar run`: how each setting is named in flags, environment and file, and how it is read."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from sidecar.config import addresses, amounts, parsers


class Option(NamedTuple):
    """How one field of `Settings` is named and read. `parse` raises ValueError whose text is the reason."""

    field: str
    parse: Callable[[object], object]
    metavar: str
    help: str
    repeats: bool = False
    word: str = ""
    secret: bool = False  # no flag: command lines are seen by others

    @property
    def flag(self) -> str:
        """Its name on the command line, and in errors about what came from there."""
        return "--" + (self.word or self.field).replace("_", "-")

    @property
    def variable(self) -> str:
        return "SIDECAR_" + (self.word or self.field).upper()


OPTIONS: tuple[Option, ...] = (
    Option("app_id", parsers.app_id, "ID", "This app's ID: letters, digits, '-' and '_'; required."),
    Option("namespace", parsers.app_id, "NAME", "Namespace of the app and of its peers."),
    Option(
        "grpc_port",
        addresses.ports,
        "PORT",
        "Port for the app's workflow SDK; repeatable.",
        repeats=True,
    ),
    Option("http_port", addresses.port, "PORT", "Port for health and metadata."),
    Option("listen_host", addresses.host, "HOST", "Address of these ports; localhost is both loopback addresses."),
    Option("insecure_listen", parsers.switch, "", "Let anybody call who reaches an address that is not loopback."),
    Option(
        "api_token",
        parsers.secret,
        "TOKEN",
        "Token that callers of these ports must show.",
        secret=True,
    ),
    Option(
        "api_token_file",
        parsers.path,
        "FILE",
        "File with that token, or two while it is changed, one a line; read again when it changes.",
    ),
    Option("app_cert", parsers.path, "FILE", "Certificate of the gRPC ports, in PEM; with it they speak TLS alone."),
    Option("app_key", parsers.path, "FILE", "Private key of that certificate."),
    Option("peer_port", addresses.port, "PORT", "Port for the sidecars of other apps."),
    Option("peer_host", addresses.host, "HOST", "Address that the peer port listens on."),
    Option("peer_cert", parsers.path, "FILE", "Certificate of this app for the peer link, in PEM."),
    Option("peer_key", parsers.path, "FILE", "Private key of that certificate."),
    Option("peer_ca", parsers.path, "FILE", "Certificate of the CA that peers must have theirs from."),
    Option("trust_domain", parsers.trust_domain, "NAME", "Trust domain in the SPIFFE IDs of certificates."),
    Option("insecure_peers", parsers.switch, "", "Accept plaintext peers on an address that is not loopback."),
    Option("data_dir", parsers.path, "DIR", "Directory of the database; sidecars may share one."),
    Option(
        "peers",
        addresses.peers,
        "APP=HOST:PORT",
        "Where another app's sidecar listens; repeatable, also separated by commas.",
        repeats=True,
        word="peer",
    ),
    Option(
        "peer_pattern",
        addresses.peer_pattern,
        "HOST:PORT",
        "Address of every other app, such as {app}-sidecar:50002; {namespace} may stand in it too.",
    ),
    Option(
        "peer_file", parsers.path, "FILE", "File of peers, YAML or TOML: app: host:port; read again when it changes."
    ),
    Option(
        "routes",
        parsers.routes,
        "KIND:NAME=APP",
        "Which app calls without a target go to, by name (activity:gpu-*=ml, workflow:ship*=logistics); repeatable, "
        "the first that fits counts.",
        repeats=True,
        word="route",
    ),
    Option("policy", parsers.path, "FILE", "File of what other apps may call here; without it, all of it."),
    Option("log_format", parsers.choice("console", "json"), "console|json", "How log lines look."),
    Option(
        "log_level",
        parsers.choice("debug", "info", "warning", "error"),
        "LEVEL",
        "debug, info, warning, error.",
    ),
    Option(
        "workflow_log_level",
        parsers.choice("debug", "info", "warning", "error", "off"),
        "LEVEL",
        "The same for lines about workflows: starts and ends are info, failures warning; off for none.",
    ),
    Option(
        "trace_otlp",
        addresses.otlp_url,
        "URL",
        "Collector of traces: http://host:4318/v1/traces for OTLP over HTTP, grpc://host:4317 over gRPC.",
    ),
    Option("trace_zipkin", addresses.url, "URL", "Collector of traces, Zipkin v2: http://host:9411/api/v2/spans."),
    Option(
        "reuse",
        parsers.choice("terminal", "never"),
        "terminal|never",
        "When an instance ID may be used again if the client states no policy: once it has ended, or never.",
    ),
    Option("max_message_bytes", amounts.size, "SIZE", "Largest gRPC message: bytes, or such as 64MiB."),
    Option(
        "worker_receive_bytes",
        amounts.size,
        "SIZE",
        "Largest message that workers receive, where neither they nor their SDK say it.",
    ),
    Option(
        "memory_limit",
        amounts.memory,
        "SIZE",
        "Memory that this process may have, such as 512MiB: new work is refused before that [default: the cgroup's].",
    ),
    Option("max_connections", amounts.count, "COUNT", "Most connections at once to each port; more are closed."),
    Option("max_calls", amounts.count, "COUNT", "Most calls of clients under way at once; more are refused."),
    Option("max_workers", amounts.count, "COUNT", "Most workers connected at once; more are refused."),
    Option(
        "turn_timeout",
        amounts.seconds,
        "SECONDS",
        "A turn that a worker has not answered is handed out again.",
    ),
    Option("activity_timeout", amounts.seconds_or_none, "SECONDS", "The same for an activity."),
    Option("entity_timeout", amounts.seconds_or_none, "SECONDS", "The same for operations of an entity."),
    Option(
        "max_deliveries",
        amounts.count_or_none,
        "COUNT",
        "How many deliveries of an item may end with the loss of the worker, until its activity fails or its workflow "
        "is parked; none: any number.",
    ),
    Option("drain_timeout", amounts.seconds, "SECONDS", "How long a stop waits for work that was handed out."),
    Option(
        "unknown_app",
        parsers.choice("wait", "fail"),
        "wait|fail",
        "What a call does whose app is not among the peers: wait for it to appear, or fail.",
    ),
    Option(
        "cascade_suspend", parsers.switch, "", "Suspend and resume the children of a workflow with it, in all apps."
    ),
    Option(
        "task_hubs",
        parsers.task_hubs,
        "ignore|separate|NAMES",
        "What the header taskhub of a call does: nothing, keep each name apart, or the same for these names alone.",
        repeats=True,
    ),
    Option("allow_hub_deletion", parsers.switch, "", "Let a client delete all instances of its task hub by one call."),
    Option(
        "retention",
        amounts.retention,
        "STATUS=TIME",
        "How long ended workflows are kept, such as completed=7d,failed=30d or any=90d; repeatable.",
        repeats=True,
    ),
    Option(
        "limits",
        amounts.limits,
        "KIND:NAME=COUNT",
        "Most at once over all workers: workflow:NAME=N, activity:NAME=N (NAME may be gpu-*), or activities=N, "
        "workflows=N for all; repeatable, also separated by commas.",
        repeats=True,
        word="limit",
    ),
)
BY_FIELD: Mapping[str, Option] = MappingProxyType({option.field: option for option in OPTIONS})
