import os
from pathlib import Path

import pytest
import structlog

from sidecar.config.parsers import Secret
from sidecar.config.settings import StartError
from sidecar.edge.security.api_tokens import ApiTokens


def shows(token: str) -> dict[str, object]:
    return {"dapr-api-token": token}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


def rewrite(path: Path, text: str) -> None:
    """As deployments do it: a new file in the place of the old one."""
    other = path.with_suffix(".new")
    other.write_text(text)
    os.replace(other, path)


def test_without_a_token_nobody_needs_one() -> None:
    tokens = ApiTokens(None, None)
    assert not tokens.asked_for
    assert tokens.refusal({}) is None
    assert tokens.refusal(shows("whatever")) is None


@pytest.mark.parametrize(
    "headers",
    [
        shows("s3cret"),
        {"authorization": "Bearer s3cret"},
        {"authorization": "bearer  s3cret"},
        {"authorization": "Bearer other", "dapr-api-token": "s3cret"},
    ],
)
def test_the_token_is_taken_from_either_header(headers: dict[str, object]) -> None:
    assert ApiTokens(Secret("s3cret"), None).refusal(headers) is None


@pytest.mark.parametrize(
    "headers",
    [{}, shows(""), {"authorization": ""}, {"authorization": "s3cret"}, {"authorization": "Basic s3cret"}],
)
def test_a_token_that_is_missing_is_asked_for(headers: dict[str, object]) -> None:
    reason = ApiTokens(Secret("s3cret"), None).refusal(headers)
    assert reason is not None
    assert reason.startswith("this sidecar asks for its API token: send it as the header dapr-api-token")


@pytest.mark.parametrize("wrong", ["s3cre", "s3crets", "S3CRET", " s3cret", "é", "\udcff", b"s3cret"])
def test_a_wrong_token_is_not_shown_in_the_refusal(wrong: str) -> None:
    reason = ApiTokens(Secret("s3cret"), None).refusal(shows(wrong))
    assert reason is not None
    assert reason.startswith("the API token is not one of this sidecar's")
    assert "s3cre" not in reason


def test_two_tokens_are_valid_while_one_takes_the_place_of_the_other(file: Path) -> None:
    tokens = ApiTokens(None, file)
    assert tokens.refusal(shows("second")) is not None
    rewrite(file, "first\nsecond\n")
    assert tokens.refusal(shows("first")) is None
    assert tokens.refusal(shows("second")) is None
    rewrite(file, "second\n")
    assert tokens.refusal(shows("first")) is not None
    assert tokens.refusal(shows("second")) is None


@pytest.mark.parametrize("broken", ["", "one\ntwo\nthree\n", "with space\n", None])
def test_a_file_that_becomes_wrong_leaves_the_tokens_as_they_were(file: Path, broken: str | None) -> None:
    tokens = ApiTokens(None, file)
    with structlog.testing.capture_logs() as logs:
        if broken is None:
            file.unlink()
        else:
            rewrite(file, broken)
        assert tokens.refusal(shows("first")) is None
        assert tokens.refusal({}) is not None
    (entry,) = logs
    assert (entry["log_level"], entry["counts"]) == ("error", "1 API token, asked of every caller")
    assert entry["error"]
    assert tokens.file is not None
    assert (tokens.file.in_force(), tokens.file.trouble) == (entry["counts"], entry["error"])
    rewrite(file, "second\n")
    assert tokens.refusal(shows("second")) is None
    assert not tokens.file.trouble


def test_a_file_that_is_changed_twice_in_one_tick_of_its_clock_is_read_twice(file: Path) -> None:
    tokens = ApiTokens(None, file)
    for token in ("other", "third"):
        file.write_text(token)
        os.utime(file, ns=(0, 0))
        assert tokens.refusal(shows(token)) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\n \n", "has 0 tokens"),
        (b"a\nb\nc", "has 3 tokens: write one a line, at most 2"),
        (b"canary with spaces", "a token is 1 to"),
        (b"\xff", "not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_start(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(StartError, match=says) as caught:
        ApiTokens(None, path)
    assert "canary" not in str(caught.value)


def test_a_file_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot read .*: no such file"):
        ApiTokens(None, tmp_path / "token")


def test_a_file_counts_alone(file: Path) -> None:
    tokens = ApiTokens(Secret("s3cret"), file)
    assert tokens.refusal(shows("s3cret")) is not None
    assert tokens.refusal(shows("first")) is None
