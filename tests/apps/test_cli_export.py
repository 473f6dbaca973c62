"""`relume export` and `relume engines`, as a user runs them."""

from __future__ import annotations

import pytest

from relume.infer.engines import engines


def test_an_export_says_what_it_wrote(relume, tiny, tmp_path):
    pytest.importorskip("onnx")
    done = relume("export", tiny, "--to", "onnx", "-o", tmp_path / "net.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "net.onnx" in done.stdout
    assert "x2, 3 channels, within" in done.stdout
    assert (tmp_path / "net.onnx").stat().st_size > 10_000


def test_an_export_keeps_what_is_there(refused, tiny, tmp_path):
    (tmp_path / "net.onnx").write_text("mine")
    refused("export", tiny, "--to", "onnx", "-o", tmp_path / "net.onnx", says=("net.onnx", "exists already"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "ncnn", "-o", "net.onnx"), ("net.onnx is not named as ncnn is",)),
        (("--to", "onnx", "-o", "no/net.onnx"), ("no/net.onnx", "does not exist")),
    ],
)
def test_nonsense_is_refused(refused, tiny, arguments, says):
    refused("export", tiny, *arguments, says=says)


def test_engines_are_listed_with_their_speed(relume, tiny, tmp_path):
    done = relume("engines", tiny, "--threads", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in engines():
        assert name in done.stdout
    assert "1 threads" in done.stdout


def test_an_unknown_precision_is_refused(refused, tiny):
    refused("engines", tiny, "--precision", "fp64", says=("fp64", "fp16"))
