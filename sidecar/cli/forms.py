"""The forms of an answer."""

from enum import StrEnum


class Form(StrEnum):
    """How an answer is written: for people in two forms, and for programs in two."""

    SHORT = "short"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def is_data(self) -> bool:
        """Whether programs read it."""
        return self in (Form.JSON, Form.YAML)
