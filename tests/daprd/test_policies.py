"""Dapr's access policies among the resources of a `daprd`."""

from pathlib import Path

import pytest

from sidecar.config.settings import ConfigError
from sidecar.core.policy import Happened, Operation, Policy
from sidecar.daprd import documents, policies

COMPONENT = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.redis, version: v1, metadata: [{name: redisHost, value: "redis:6379"}]}
"""
POLICY = """
apiVersion: dapr.io/v1alpha1
kind: WorkflowAccessPolicy
metadata: {name: bank}
scopes: [bank]
spec:
  rules:
    - callers: [{appID: orders}, {appID: shop}]
      workflows: [{name: "pay[^0-9]*", operations: [schedule, get]}]
      activities: [{name: "score"}]
"""
REQUIRES = """
kind: WorkflowAccessPolicy
spec:
  rules:
    - callers: [{appID: orders}]
      activities:
        - name: charge
          requires:
            - {eventType: activity, status: Completed, name: validate, appID: orders}
            - {eventType: event, status: Raised, name: approved}
"""
SCHEDULE = Operation.SCHEDULE


def policy(folder: Path, *texts: str, app: str = "bank", namespace: str = "default") -> Policy | None:
    for left in folder.iterdir():
        left.unlink()
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    found = policies.watched(documents.in_folders([str(folder)]), app, namespace)
    return None if found is None else found.look()


def allows(found: Policy | None, caller: str, kind: str, name: str, operation: Operation = SCHEDULE) -> bool:
    assert found is not None
    return bool(found.fitting(caller, kind, name, operation))


def test_a_policy_is_read_from_among_other_resources(tmp_path: Path) -> None:
    found = policy(tmp_path, COMPONENT, f"{COMPONENT}\n---\n{POLICY}\n--- # the end\n", "a: {{ template }}: [")
    assert allows(found, "orders", "activity", "score")
    assert allows(found, "shop", "activity", "score")
    assert not allows(found, "other", "activity", "score")
    assert allows(found, "orders", "workflow", "payment")
    assert allows(found, "orders", "workflow", "payment", Operation.GET)
    assert not allows(found, "orders", "workflow", "payment", Operation.PURGE)
    assert not allows(found, "orders", "workflow", "pay1")


def test_a_caller_is_no_pattern(tmp_path: Path) -> None:
    found = policy(tmp_path, POLICY.replace("appID: orders", 'appID: "*"'))
    assert not allows(found, "orders", "activity", "score")


def test_without_a_policy_for_the_app_all_is_allowed(tmp_path: Path) -> None:
    assert policy(tmp_path, COMPONENT, POLICY, app="ml") is None
    elsewhere = POLICY.replace("{name: bank}", "{name: bank, namespace: shop}")
    assert policy(tmp_path, elsewhere) is None
    assert policy(tmp_path, elsewhere, namespace="shop") is not None


def test_a_policy_without_rules_allows_nothing(tmp_path: Path) -> None:
    assert policy(tmp_path, "kind: WorkflowAccessPolicy") == Policy(())


def test_several_policies_allow_what_each_allows(tmp_path: Path) -> None:
    found = policy(tmp_path, POLICY, REQUIRES)
    assert allows(found, "orders", "activity", "score")
    assert allows(found, "orders", "activity", "charge")


def test_what_is_required_must_have_happened_in_any_order(tmp_path: Path) -> None:
    found = policy(tmp_path, REQUIRES)
    assert found is not None
    (rule,) = found.rules
    validated = Happened("activity", "validate", "completed", "orders")
    approved = Happened("event", "approved", "raised", "orders")
    assert rule.met_by(lambda: [validated, approved])
    assert rule.met_by(lambda: iter([approved, validated]))
    assert not rule.met_by(lambda: [approved])
    assert not rule.met_by(lambda: [approved, validated._replace(app="other")])
    assert not rule.met_by(lambda: [approved, validated._replace(outcome="scheduled")])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kind: WorkflowAccessPolicy\nspec: {", "not valid YAML"),
        (POLICY.replace("[bank]", "bank"), "scopes: write a list"),
        (POLICY.replace("[schedule, get]", "[]"), "rule 1: operations"),
        (POLICY.replace("[schedule, get]", "[start]"), "rule 1: operations"),
        (POLICY.replace('{name: "score"}', "{}"), "rule 1: name is missing"),
        (POLICY.replace("[{appID: orders}, {appID: shop}]", "[]"), "rule 1: a rule has callers"),
        (REQUIRES.replace("Raised", "Completed"), "cannot be required"),
        (REQUIRES.replace("{eventType: activity", "{eventType: workflow.started"), "cannot be required"),
        (POLICY.replace("[bank]", "[ml]").replace("rules:", "rules: 7\n  x:"), "rules: write a list"),
    ],
)
def test_a_policy_that_is_wrong_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        policy(tmp_path, text)


def test_only_files_of_the_folder_itself_are_read(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "policy.yaml").write_text(POLICY)
    (tmp_path / "policy.txt").write_text(POLICY)
    (tmp_path / "folder.yaml").mkdir()
    assert documents.in_folders([str(tmp_path)]) == ()
