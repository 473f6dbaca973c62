"""What this process uses of the machine."""

from __future__ import annotations

import sys


def peak_memory() -> int | None:
    """Return the largest resident memory of this process so far in bytes, or None where it cannot be read."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
