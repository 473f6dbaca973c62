"""Fixtures that every test file may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# What they assert is told as in a test itself.
pytest.register_assert_rewrite("official")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that no other run has filled, and one engine for all: measuring them is tested by itself.

    Commands that tests start inherit both.
    """
    before = {name: os.environ.get(name) for name in ("RELUME_CACHE", "RELUME_ENGINE")}
    os.environ["RELUME_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["RELUME_ENGINE"] = "torch"
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of pictures and weights beside the repository; tests that read it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared folder of pictures and weights at {folder}")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with one small photo of noise."""
    import torch

    from relume.core.pictures import Picture, write

    folder = tmp_path / "photos"
    folder.mkdir()
    torch.manual_seed(0)
    write(Picture(pixels=torch.rand(3, 64, 64)), folder / "a.png")
    return folder
