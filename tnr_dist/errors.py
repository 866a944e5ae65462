"""Errors that a user can cause and mend; the command line turns each into one line and an exit code."""


class InputError(Exception):
    """Bad input or configuration: one clear line that names what, where and what to do. Exit code 2."""


class Preempted(Exception):
    """The run was told to stop and has written a checkpoint. Exit code 75 (EX_TEMPFAIL)."""


class RankLost(Exception):
    """Another rank ended or does not answer; names it. Exit code 1: the run goes on from its last checkpoint."""
