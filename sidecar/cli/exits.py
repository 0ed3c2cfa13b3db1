"""How a command ends: its exit code, and the error that carries one."""

from enum import IntEnum

TEXT = (
    "Exit codes: 0 done; 1 done, and the answer is no (it has failed, or some were refused, or something is wrong); "
    "2 a wrong option or setting; 3 no such workflow; 4 refused by the sidecar; 5 no sidecar answers; 6 not in time."
)


class Exit(IntEnum):
    """The exit codes. Scripts compare them: never change one."""

    DONE = 0
    NO = 1  # it was done, and the answer is no: a workflow has failed, a check has found something, a part was refused
    WRONG = 2  # a wrong option, setting or file
    MISSING = 3  # there is no such workflow
    REFUSED = 4  # the sidecar does not do that, and says why
    UNREACHED = 5  # no sidecar answers, or it asks for a token
    TIME_OVER = 6  # what was waited for has not happened


class Failure(Exception):  # noqa: N818 - it is how a command ends, and not always an error
    """A command ends with an exit code other than 0: what is wrong, and what to do; both "" if all has been said.

    Together they are one line, for stderr.
    """

    def __init__(self, code: Exit, what: str = "", how: str = "") -> None:
        super().__init__(f"{what}: {how}" if how else what)
        self.code, self.what, self.how = code, what, how
