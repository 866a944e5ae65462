"""The small chain's configuration, whose studies are run here."""

from tests.unit.stages.conftest import chain_yaml  # noqa: F401
