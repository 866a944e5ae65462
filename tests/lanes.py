"""Lanes that not every machine can run."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip; or fail, where TNR_REQUIRE_LANES=1 says that this machine has all that the lane needs."""
    if os.environ.get("TNR_REQUIRE_LANES") == "1":
        pytest.fail(f"TNR_REQUIRE_LANES=1, and {reason}")
    pytest.skip(reason)
