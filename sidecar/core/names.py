"""Which names and IDs may exist. Each check says what is wrong, or returns None."""

import re
from collections.abc import Collection

MAX_ID_LENGTH = 256  # of what a person gives: an ID to start with, a name, the key of a tag
MOST_ID_LENGTH = 16_384  # of any ID: each level of children without IDs of their own adds five characters
MAX_TAGS = 32
_APP_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}\Z")
_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENTITY = re.compile(r"@([^@]+)@(.+)\Z", re.DOTALL)
_LIKE_ENTITY = re.compile(r"@[^@]+@")  # what is appended, for a child, makes it the ID of an entity


def is_told(told: str | None, name: str) -> bool:
    """Whether what a worker says that it does not know is this name; "" says no name, None nothing at all."""
    return told is not None and told.casefold() in ("", name.casefold())


def invalid_app_id(app: str) -> str | None:
    """Say what is wrong with an app ID, or return None when it may exist."""
    if _APP_ID.match(app):
        return None
    return f"app ID {app[:80]!r} is invalid: use 1 to {MAX_ID_LENGTH} letters, digits, '-' or '_'"


def invalid_instance_id(instance_id: str) -> str | None:
    """Say why there can be no instance of this ID, or return None."""
    if not instance_id:
        return "the instance ID is empty"
    if len(instance_id) > MOST_ID_LENGTH:
        return f"the instance ID has {len(instance_id)} characters; at most {MOST_ID_LENGTH} are allowed"
    if _CONTROL.search(instance_id):
        return f"the instance ID {instance_id[:80]!r} contains control characters"
    if _ENTITY.match(instance_id):
        return f"the ID {instance_id[:80]!r} is that of an entity: no workflow may have it"
    return None


def invalid_new_id(instance_id: str) -> str | None:
    """Say why no instance may be created under an ID that a program has made, or return None."""
    if _LIKE_ENTITY.match(instance_id):
        return f"the ID {instance_id[:80]!r} is that of an entity: no workflow may have it"
    return invalid_instance_id(instance_id)


def invalid_chosen_id(instance_id: str) -> str | None:
    """Say why a client may not create an instance under an ID, or return None."""
    if len(instance_id) > MAX_ID_LENGTH:
        return f"the instance ID has {len(instance_id)} characters; at most {MAX_ID_LENGTH} are allowed"
    return invalid_new_id(instance_id)


def invalid_hub(hub: str) -> str | None:
    """Say what is wrong with the name of a task hub, or return None."""
    if _HUB.match(hub):
        return None
    return f"invalid task hub {hub[:80]!r}: use 1 to 64 letters, digits, '-', '_' or '.', the first a letter or digit"


def entity_id(text: str) -> str | None:
    """Return the ID of an entity, `@name@key`, with its name in lower case; None if the text is not such an ID."""
    match = _ENTITY.match(text)
    if match is None or len(text) > MOST_ID_LENGTH or _CONTROL.search(text):
        return None
    return f"@{match[1].lower()}@{match[2]}"


def entity_name(entity: str) -> str:
    """Return the name in the ID of an entity."""
    return entity.split("@", 2)[1]


def entity_prefix(text: str) -> str:
    """Return what the IDs of entities begin with, for a prefix that a person gave: with the name in lower case."""
    name, mark, key = text.removeprefix("@").partition("@")
    return f"@{name.lower()}{mark}{key}" if text.startswith("@") or not text else text


def invalid_name(what: str, name: str) -> str | None:
    """Say what is wrong with the name of a workflow, an activity or an event, or return None."""
    if not name:
        return f"the {what} name is empty"
    if len(name) > MAX_ID_LENGTH:
        return f"the {what} name has {len(name)} characters; at most {MAX_ID_LENGTH} are allowed"
    return None


def invalid_tags(keys: Collection[str]) -> str | None:
    """Say what is wrong with the tags of a workflow, or return None."""
    if len(keys) > MAX_TAGS:
        return f"the workflow has {len(keys)} tags; at most {MAX_TAGS} are allowed"
    too_long = next((key for key in keys if len(key) > MAX_ID_LENGTH), None)
    if too_long is not None:
        return f"the tag {too_long[:80]!r} has {len(too_long)} characters; at most {MAX_ID_LENGTH} are allowed"
    return None
