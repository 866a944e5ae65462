"""Lanes that not every machine can run."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import NoReturn

import pytest

from tnr_dist.engines.horovod.start import load_horovod
from tnr_dist.util.errors import InputError


def missing(reason: str) -> NoReturn:
    """Skip; or fail, where TNR_REQUIRE_LANES=1 says that this machine has all that the lane needs."""
    if os.environ.get("TNR_REQUIRE_LANES") == "1":
        pytest.fail(f"TNR_REQUIRE_LANES=1, and {reason}")
    pytest.skip(reason)


@functools.cache
def reason_against(engine: str) -> str:
    """Why an engine cannot run here; empty when it can."""
    if engine == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        return "deepspeed is not installed (make venv)"
    if engine == "horovod":
        try:
            load_horovod()
        except InputError as error:
            return str(error)
    return ""
