"""The real command on small pictures, with a network small enough to make hundreds of runs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from commanding import Done, authors_name, content, no_artefacts, run_relume
from relume.core.catalogue import find_variant
from relume.core.checkpoints import Header, write_checkpoint
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.nn.surgery import apply_steps


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Have commands hear SIGINT also where the tests run in the background, which they would inherit."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def relume() -> Callable[..., Done]:
    return run_relume


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must fail: with status 1, one line that says all of `says`, and nothing changed."""

    def check(*args: object, says: tuple[str, ...], cwd: Path = tmp_path, **options: Any) -> str:
        before = content(tmp_path)
        done = run_relume(*args, cwd=cwd, **options)
        assert done.returncode == 1, (done.stdout, done.stderr)
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        assert done.stdout == ""
        assert no_artefacts(lines[0])
        for words in says:
            assert words in lines[0]
        assert content(tmp_path) == before
        return lines[0]

    return check


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small network that enlarges by 2, as ours (.safetensors) and its authors' (.pth)."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    config = CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=3)
    network = CFSR(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("_scale"):
                parameter.fill_(1.0)  # as built, the layers are all but switched off
    apply_steps(network, ("reparameterise",))
    state = network.state_dict()
    header = Header(
        model="cfsr", variant=None, config=config.model_dump(mode="json"), steps=("reparameterise",)
    )
    write_checkpoint(folder / "tiny.safetensors", state, header)
    torch.save({"params": {authors_name(key): value for key, value in state.items()}}, folder / "tiny.pth")
    return folder


@pytest.fixture(scope="session")
def tiny(weights: Path) -> Path:
    return weights / "tiny.safetensors"


@pytest.fixture(scope="session")
def default_model() -> str:
    """The model that is used when none is named; tests that take it skip where it has no weights."""
    path = find_variant("cfsr-x4").weights_path
    if path is None or not path.is_file():
        pytest.skip("cfsr-x4 comes without weights in this tree")
    return "cfsr-x4"


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be written to, by root either."""
    folder = tmp_path / "closed"
    folder.mkdir()
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    yield from _mounted(folder, "ro")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield from _mounted(folder, "size=1m")


def _mounted(folder: Path, options: str) -> Iterator[Path]:
    try:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this system does not let a disk be mounted for a test")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
