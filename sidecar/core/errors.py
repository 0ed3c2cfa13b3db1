"""What can be wrong with what others ask of the core; the text of each is for them."""


class UnsupportedActionError(Exception):
    """The worker asked for something that this sidecar cannot do."""


class OvertakenError(Exception):
    """The instance has gone on without the turn that is answered: what was computed in it does not hold."""


class DeniedError(Exception):
    """The access policy of this app does not allow another app to do that."""


class MalformedError(Exception):
    """The bytes are not what they should be; the text says what."""
