"""libvips, set up once for all that is done with it here."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

import pyvips

from relume.core.files import reason

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# libvips' warnings come through this logger; without a handler, Python would print them.
logging.getLogger("pyvips").addHandler(logging.NullHandler())
# A damaged file's bytes may be quoted in such a warning. Were they not UTF-8, pyvips'
# callback would fail and Python print that.
pyvips._to_string = lambda text: (
    "" if text == pyvips.ffi.NULL else pyvips.ffi.string(text).decode("utf-8", "replace")
)
# Its cache holds files open, and so disk space, for a second use that never comes.
pyvips.cache_set_max(0)
# Coding PNG, JPEG and TIFF keeps one thread busy; each further one takes some rows of memory,
# and more threads than free cores hinder each other badly.
_all_threads = pyvips.vips_lib.vips_concurrency_get()
pyvips.vips_lib.vips_concurrency_set(1)


@contextlib.contextmanager
def all_threads() -> Iterator[None]:
    """Let libvips use as many threads as it would by itself (by the cores, or VIPS_CONCURRENCY)."""
    pyvips.vips_lib.vips_concurrency_set(_all_threads)
    try:
        yield
    finally:
        pyvips.vips_lib.vips_concurrency_set(1)


def refusal(error: Exception) -> str | None:
    """Return why the system refused to take what libvips wrote, None where something else failed."""
    for number in _REFUSALS:
        if os.strerror(number) in str(getattr(error, "detail", "")):
            return reason(OSError(number, os.strerror(number)))
    return None


def said() -> str:
    """Return what libvips has said since `forget`, warnings included."""
    return pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode("utf-8", "replace")


def forget() -> None:
    """Forget what libvips has said."""
    pyvips.vips_lib.vips_error_clear()
