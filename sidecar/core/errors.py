"""What can be wrong with what others ask of the core. The text of each error is meant for whoever asked."""


class UnsupportedActionError(Exception):
    """The worker asked for something that this sidecar cannot do."""


class OvertakenError(Exception):
    """The instance has gone on without the turn that is answered, so nothing of the answer may be committed."""


class DeniedError(Exception):
    """The access policy of this app does not allow another app to do that."""


class MalformedError(Exception):
    """The bytes are not what they should be; the text says what."""
