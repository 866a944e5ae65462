"""The one build step that pyproject.toml cannot say: a wheel carries configs/, launch/ and slurm/, which `tnr init` writes out."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithFiles(build_py):
    """Copies the folders into tnr_dist/launch/files/. An editable install reads those of its checkout."""

    def run(self) -> None:
        """See the class."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "tnr_dist", "launch", "files")
        shutil.rmtree(target, ignore_errors=True)  # an earlier build may have left what is no longer there
        for name in ("configs", "launch", "slurm"):
            # A cluster's own settings (env.local.sh) stay where they are; tnr_dist/launch/scripts.py has the same rule.
            leave_out = shutil.ignore_patterns("__pycache__", ".*", "env.*.sh")
            shutil.copytree(ROOT / name, target / name, ignore=leave_out)


setup(cmdclass={"build_py": BuildWithFiles})
