"""Watch folders for pictures that come, and take each once it has come whole.

Watching is looking again and again: that works on every system and on network disks, where
notices of change do not come. What does not change any more for a while is taken; should a copy
have halted for longer than that, its picture fails, and is taken again when the file has grown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from relume.infer.batch.manifest import Manifest
from relume.infer.batch.planning import Refuse, Wish, add, settled
from relume.infer.batch.stages import Job

INTERVAL = 1.0
"""Seconds between two looks."""

SETTLE = 2.0
"""Seconds for which a file must not have changed before it is taken."""


def arrivals(
    manifest: Manifest,
    look: Callable[[], Iterable[Wish]],
    *,
    stop: threading.Event,
    overwrite: bool = False,
    refuse: Refuse | None = None,
    interval: float = INTERVAL,
    settle: float = SETTLE,
) -> Iterator[Job]:
    """Yield a job for each picture that comes, until `stop` is set.

    What was done before, in this run or an earlier one, is not taken again unless it has changed.

    Args:
        manifest: where jobs are entered.
        look: gives all that is there now; it is called anew for each look.
        stop: ends the watching.
        overwrite: whether files that are in the way may be replaced.
        refuse: told of each input that cannot be done.
        interval: seconds between two looks; a look that takes long makes it ten times as long as that.
        settle: seconds for which size and time of change must have stayed the same.
    """
    waiting: dict[str, tuple[Wish, float]] = {}
    known: set[int] = set()  # hashes, as the wishes themselves would take much memory in large folders
    refused: set[int] = set()

    def note(source: str, line: str) -> None:
        refused.add(hash(source))
        if refuse is not None:
            refuse(source, line)

    while not stop.is_set():
        began = time.monotonic()
        seen: dict[str, tuple[Wish, float]] = {}
        for wish in look():
            if stop.is_set():
                return
            if not wish.size or hash(wish) in known:
                continue
            if settled(manifest, wish):
                known.add(hash(wish))
                continue
            before, since = waiting.get(wish.source, (wish, began))
            if before != wish:
                since = began
            if began - since < settle:
                seen[wish.source] = (wish, since)
            elif (job := add(manifest, wish, overwrite=overwrite, refuse=note)) is not None:
                yield job
            elif hash(wish.source) in refused:
                # Told once; taken up again when the file changes.
                refused.discard(hash(wish.source))
                known.add(hash(wish))
        waiting = seen
        took = time.monotonic() - began
        stop.wait(max(interval, 10 * took))
