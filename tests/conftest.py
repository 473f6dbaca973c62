"""Fixtures that every test file may use."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of pictures and weights beside the repository; tests that read it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared folder of pictures and weights at {folder}")
    return folder
