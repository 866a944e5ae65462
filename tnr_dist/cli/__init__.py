"""The command `tnr`: commands that train, that score, and tools; those for data; and `tnr doctor`."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from tnr_dist.cli.app import main as run  # only here: every module of this package imports it first

    run()
