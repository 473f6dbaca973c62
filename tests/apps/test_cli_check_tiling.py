"""`relume check-tiling`: what it says of a sound model, and that a fault is told."""

from __future__ import annotations

import re

import pytest
import typer

from relume.apps.commands.check_tiling import check_tiling


@pytest.mark.parametrize("options", [(), ("--ensemble",)])
def test_a_sound_model(tmp_path, relume, tiny, options):
    done = relume("check-tiling", tiny, "--tile", "9", *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = re.search(r"halo (\d+), measured: (\d+), of which (\d+) matter", done.stdout)
    assert said
    halo, reach, visible = map(int, said.groups())
    assert visible <= reach == halo
    assert f"{2 * (9 + halo) + 3}x1 " in done.stdout
    assert "tiles give the pixels of the whole" in done.stdout


def test_tiles_that_differ_end_in_status_1(monkeypatch, capsys, tiny):
    monkeypatch.setattr("relume.infer.check_tiling.TOLERANCE", -1.0)
    with pytest.raises(typer.Exit) as ended:
        check_tiling(str(tiny), tile=9, device="cpu")
    assert ended.value.exit_code == 1
    assert "tiles differ from the whole by more than -1" in capsys.readouterr().err


def test_an_unknown_model_is_refused(refused):
    refused("check-tiling", "cfsr-x9", says=("cfsr-x9", "did you mean"))
