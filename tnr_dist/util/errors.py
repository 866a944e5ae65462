"""Errors that a user can cause and mend; the command line turns each into one line and an exit code."""

import errno

_LONGEST = 1000  # characters of a message: a damaged file may give a value of a million
# What a user mends: permissions, space, a file where a folder is due. A file that is gone or a server that does not
# answer may be back for the next try, so those stay exit code 1.
_MENDABLE = {
    errno.EACCES: "permission denied; change its permissions or choose another place",
    errno.EPERM: "permission denied; change its permissions or choose another place",
    errno.EROFS: "on a read-only file system; choose another place",
    errno.ENOSPC: "No space left on device; make room and run it again",
    errno.EDQUOT: "disk quota exceeded; make room and run it again",
    errno.EFBIG: "file too large for the file system or the limits of this process (ulimit -f)",
    errno.EISDIR: "a folder where a file is expected",
    errno.ENOTDIR: "lies under a file, not under a folder; choose another place",
    errno.EEXIST: "exists already and is not a folder; choose another place",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a link that leads back to itself",
}


class InputError(Exception):
    """Bad input or configuration: one clear line that names what, where and what to do. Exit code 2."""


class Preempted(Exception):
    """The run was asked to stop and has written a checkpoint. Exit code 75 (EX_TEMPFAIL)."""


class Unavailable(Exception):
    """What is missing may be there for the next try: the same command resumes. Exit code 69 (EX_UNAVAILABLE)."""


class RankLost(Unavailable):
    """Another rank ended, does not answer or did not come; names it where it can."""


class PortTaken(Unavailable):
    """Something else listens where the ranks were to meet."""


class EarlierStart(Unavailable):
    """An earlier start of this job is still running."""


class LeaseLost(Unavailable):
    """Another process has taken this one's folder over, after it was silent for long: nothing more is written there."""


def os_error_advice(error: BaseException) -> str:
    """One line for an error of the operating system that a user can mend; empty for any other error."""
    if not isinstance(error, OSError) or error.errno not in _MENDABLE or error.filename is None:
        return ""
    return f"{error.filename}: {_MENDABLE[error.errno]}"


def one_line(message: str) -> str:
    """A message without line breaks and control characters; of a very long one the beginning and the end."""
    text = "".join(one if one.isprintable() else " " if one.isspace() else "?" for one in _cut(message))
    return " ".join(text.split())


def _cut(message: str) -> str:
    if len(message) <= _LONGEST:
        return message
    return f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 4 :]}"
