"""One server of child processes for all files here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("resource")  # limits and forks are of Unix

from children import Children


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    with Children() as running:
        yield running
