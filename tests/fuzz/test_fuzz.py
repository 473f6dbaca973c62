"""Broken files of every format: a crash, a hang, a blow-up, a traceback or noise on stderr fails.

A few examples each run with the other tests, always the same ones. `RELUME_FUZZ=5000`
runs that many of each kind, others every time; `make fuzz` does so.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import seeds
from children import complaint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import broken

from serving import Ended

THOROUGH = int(os.environ.get("RELUME_FUZZ", "0"))
MEMORY = 256 << 20

every_picture = pytest.mark.parametrize("kind", seeds.SUFFIXES)


def examples(usual: int) -> settings:
    return settings(
        max_examples=THOROUGH or usual,
        derandomize=not THOROUGH,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def tally(request):
    """Counts how the examples ended; a thorough run shows it (pytest -s)."""
    outcomes: list[Ended] = []
    yield outcomes
    if THOROUGH and outcomes:
        read = sum(outcome.status == 0 or "tensors were read" in outcome.out for outcome in outcomes)
        largest = max(outcome.grown for outcome in outcomes) >> 20
        longest = max(outcome.seconds for outcome in outcomes)
        print(
            f"\n{request.node.name}: {len(outcomes)} files, {read} usable, {len(outcomes) - read} refused, "
            f"at most {largest} MiB and {longest:.1f} s"
        )


def judge(outcome: Ended, path: Path, *, quiet: bool) -> None:
    trouble = complaint(outcome, memory=MEMORY, quiet=quiet)
    if trouble:
        kept = Path(os.environ.get("RELUME_FUZZ_KEEP", path.parent)) / f"failed-{path.name}"
        kept.write_bytes(path.read_bytes())
        pytest.fail(f"{trouble}: {kept}\n{outcome.err[-3000:]}")


@every_picture
def test_sound_pictures_are_read_and_written(tmp_path, children, kind):
    for number, data in enumerate(seeds.pictures(kind)):
        path = tmp_path / f"{number}{seeds.SUFFIXES[kind]}"
        path.write_bytes(data)
        outcome = children.run("picture", path)
        judge(outcome, path, quiet=True)
        assert outcome.status == 0 or "samples are of type float" in outcome.err


@every_picture
def test_broken_pictures_are_read_or_refused_in_one_line(tmp_path, children, tally, kind):
    @examples(60)
    @given(data=broken(partial(seeds.pictures, kind), kind))
    def check(data: bytes) -> None:
        path = tmp_path / f"a{seeds.SUFFIXES[kind]}"
        path.write_bytes(data)
        tally.append(children.run("picture", path))
        judge(tally[-1], path, quiet=True)

    check()


SETTINGS = (
    "scale",
    "channels",
    "width",
    "depths",
    "kernel_size",
    "ratio",
    "image_range",
    "reconstruction",
    "x",
)
PARTS = ("model", "variant", "config", "steps", "trained", "measured", "recipe", "sha256", "format", "x")
numbers = st.one_of(st.integers(-2, 70), st.sampled_from((1 << 16, 1 << 40, 10**30)), st.floats())
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8), st.sampled_from(("cfsr", "carn"))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def test_any_settings_in_a_header_are_taken_or_refused_in_one_line(tmp_path, children, tally):
    @examples(60)
    @given(
        config=st.dictionaries(st.sampled_from(SETTINGS), st.one_of(numbers, values), max_size=2),
        parts=st.dictionaries(st.sampled_from(PARTS), values, max_size=1),
    )
    def check(config: dict[str, Any], parts: dict[str, Any]) -> None:
        path = tmp_path / "a.safetensors"
        path.write_bytes(seeds.checkpoint(config, **parts))
        tally.append(children.run("network", path))
        judge(tally[-1], path, quiet=True)

    check()


@pytest.mark.parametrize("kind", ["safetensors", "pth", "zip", "legacy", "onnx"])
def test_broken_weights_load_or_are_refused_in_one_line(tmp_path, children, tally, kind):
    sound = partial(seeds.weights, "pth" if kind == "zip" else kind)
    suffix = {"safetensors": ".safetensors", "onnx": ".onnx"}.get(kind, ".pth")

    @examples(30)
    @given(data=broken(sound, kind))
    def check(data: bytes) -> None:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(data)
        tally.append(children.run("weights", path))
        judge(tally[-1], path, quiet=True)

    check()
