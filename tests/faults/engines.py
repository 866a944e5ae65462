"""Imported by the process that ranks are forked from (`warm`): all that an engine would import, so that no rank waits for it."""

import contextlib

from tnr_dist.engines.deepspeed.engine import load_deepspeed
from tnr_dist.engines.horovod.start import load_horovod
from tnr_dist.util.errors import InputError

for load in (lambda: load_deepspeed("cpu"), load_horovod):
    with contextlib.suppress(InputError):
        load()
