"""What may be shown of a user's settings: keys and passwords are logged nowhere."""

from __future__ import annotations

import re
from typing import Any


def without_secrets(value: Any) -> Any:
    """A configuration's values without what a URL may carry beside its place: user, password, signature.

    Of a `pipe:` URL, which is a shell command, nothing stays: a key may stand anywhere in it.
    """
    if isinstance(value, dict):
        return {key: without_secrets(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    if isinstance(value, str):
        value = re.sub(r"(^|=)pipe:.*", r"\1pipe:...", value, flags=re.DOTALL)  # alone, or in a row's `data.shards=...`
        if "://" in value:
            value = re.sub(r"\?.*", "", re.sub(r"://[^/]*@", "://", value))
    return value
