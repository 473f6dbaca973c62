"""`relume evaluate` as a user runs it: its files, its record in the weights, and what it refuses."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

import relume
from relume.apps.cli import app
from relume.core.catalogue import find_variant, variants
from relume.core.checkpoints import Header, read_checkpoint, write_checkpoint
from relume.core.pictures import Picture, write
from relume.data.benchmarks import find_pairs
from relume.insight import leaderboard
from relume.measures.protocols import protocol
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.models.super_resolution.espcn import ESPCN, ESPCNConfig

TINY = CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=3)


@pytest.fixture
def desk(tmp_path):
    torch.manual_seed(0)
    header = Header(model="cfsr", variant=None, config=TINY.model_dump(mode="json"))
    write_checkpoint(tmp_path / "tiny.safetensors", CFSR(TINY).state_dict(), header)
    (tmp_path / "set").mkdir()
    for name in ("a", "b"):
        write(Picture(pixels=torch.rand(3, 33, 42)), tmp_path / "set" / f"{name}.png")
    return tmp_path


def evaluate(desk, *arguments, expect=0):
    done = subprocess.run(
        [sys.executable, "-m", "relume.apps.cli", "evaluate", *arguments],
        cwd=desk, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done


def test_table_csv_and_json_tell_the_same(desk):
    done = evaluate(desk, "tiny.safetensors", "--data", "My set=set")
    document = json.loads((desk / "evaluation" / "tiny-sr-y.json").read_text())
    with (desk / "evaluation" / "tiny-sr-y.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "b"]
    (entry,) = document["sets"]
    assert entry["set"] == "My set"
    assert entry["psnr"] == pytest.approx(sum(float(row["psnr"]) for row in rows) / 2)
    assert f"{entry['psnr']:.3f}" in done.stdout
    assert document["protocol"]["name"] == "sr-y"
    weights = (desk / "tiny.safetensors").read_bytes()
    assert document["model"]["file_sha256"] == hashlib.sha256(weights).hexdigest()
    assert rows[0]["high_sha256"] == hashlib.sha256((desk / "set" / "a.png").read_bytes()).hexdigest()
    assert document["versions"]["torch"] == torch.__version__


def test_record_puts_the_figures_into_the_weights(desk):
    path = desk / "tiny.safetensors"
    _, before = read_checkpoint(path)
    for _ in range(2):
        evaluate(desk, "tiny.safetensors", "--data", "set", "--record")
    header, after = read_checkpoint(path)
    (entry,) = header.measured
    assert (entry["set"], entry["protocol"], entry["pictures"]) == ("set", "sr-y", 2)
    assert entry["psnr"] < entry["bicubic_psnr"]
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.safetensors", "--data", "nowhere"], "nowhere"),
        (["tiny.safetensors", "--data", "set", "--protocol", "sr-yy"], "did you mean 'sr-y'?"),
        (["cfsr-x5", "--data", "set"], "unknown model 'cfsr-x5'"),
        (["missing.safetensors", "--data", "set"], "there is no file missing.safetensors"),
        (["tiny.safetensors", "--data", "set", "-o", "set/a.png"], "cannot make the folder set/a.png"),
        (["tiny.safetensors", "--data", "set", "-o", "no/folder"], "cannot make the folder no/folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(desk, arguments, message):
    done = evaluate(desk, *arguments, expect=1)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.mark.parametrize("of", ["luma", "gray"])
def test_models_of_one_channel_are_measured_on_what_users_get(desk, of):
    if of == "luma":
        config, network = ESPCNConfig(scale=2, width=8), ESPCN
    else:
        config, network = CFSRConfig(scale=2, channels=1, width=8, depths=(1,), kernel_size=3), CFSR
    header = Header(
        model="espcn" if of == "luma" else "cfsr", variant=None, config=config.model_dump(mode="json")
    )
    write_checkpoint(desk / "one.safetensors", network(config).state_dict(), header)
    evaluate(desk, "one.safetensors", "--data", "set")
    (entry,) = json.loads((desk / "evaluation" / "one-sr-y.json").read_text())["sets"]
    figures = []
    for pair in find_pairs(desk / "set", scale=2):
        output = relume.upscale(Picture(pixels=pair.low), model=str(desk / "one.safetensors"))
        figures.append(protocol("sr-y").measure(output.pixels, pair.high, 2)["psnr"])
    assert entry["psnr"] == pytest.approx(sum(figures) / 2, abs=1e-3)


def test_a_model_is_measured_on_pictures_that_are_damaged_alike_each_time(desk):
    arguments = ["tiny.safetensors", "--data", "set", "--degradation", "bsrgan", "--seed", "3"]
    for name in ("first", "second"):
        done = evaluate(desk, *arguments, "--set", "margin=2", "-o", name)
    title = "set (bsrgan, seed 3, margin=2)"
    first, second = (
        json.loads((desk / name / "tiny-sr-y-bsrgan-3.json").read_text()) for name in ("first", "second")
    )
    assert [entry["set"] for entry in first["sets"]] == [title]
    assert first["model"]["inputs"]["margin"] == 2
    assert [row["psnr"] for row in first["pictures"]] == [row["psnr"] for row in second["pictures"]]
    evaluate(desk, "tiny.safetensors", "--data", "set")
    (clean,) = json.loads((desk / "evaluation" / "tiny-sr-y.json").read_text())["sets"]
    assert clean["bicubic_psnr"] != first["sets"][0]["bicubic_psnr"]
    assert done.stderr == ""


def test_several_models_make_one_table_past_one_that_fails(desk):
    shutil.copy(desk / "tiny.safetensors", desk / "other.safetensors")
    (desk / "broken.safetensors").write_bytes(b"no weights")
    names = ["tiny.safetensors", "broken.safetensors", "other.safetensors"]
    done = evaluate(desk, *names, "--data", "set", "--plot", expect=1)
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "broken.safetensors" in error
    board = desk / "evaluation"
    assert {path.name for path in board.iterdir()} == {
        f"leaderboard-sr-y{end}" for end in (".csv", ".md", ".png", "-plot.png")
    }
    with (board / "leaderboard-sr-y.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"bicubic", "tiny", "other"}
    evaluate(desk, "tiny.safetensors", "--data", "set", "-o", "alone")
    (entry,) = json.loads((desk / "alone" / "tiny-sr-y.json").read_text())["sets"]
    assert float(rows["tiny"]["set psnr"]) == pytest.approx(entry["psnr"], abs=1e-4)
    assert rows["tiny"]["parameters"] == str(sum(value.numel() for value in CFSR(TINY).parameters()))
    assert "tiny" in done.stdout


@pytest.fixture
def quickly(desk, monkeypatch):
    """Runs the command in this process, and has cost told of an output of 128 × 72 pixels."""
    monkeypatch.chdir(desk)
    monkeypatch.setattr("relume.insight.leaderboard.OUTPUT", (72, 128))
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(app, ["evaluate", *arguments])


def test_every_model_that_comes_with_weights_makes_a_row_with_all_figures(desk, quickly):
    (desk / "set" / "b.png").unlink()
    done = quickly("--all", "--data", "set", "--plot")
    assert done.exit_code == 0, done.output
    with (desk / "evaluation" / "leaderboard-sr-y.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    shipped = {each.name for each in variants().values() if each.weights_path and each.scale > 1}
    assert rows.keys() == shipped | {"bicubic"}
    assert all(int(rows[name]["macs"]) > int(rows[name]["parameters"]) for name in shipped)
    assert all(float(rows[name]["seconds"]) > 0 for name in shipped)


def test_a_model_that_fails_unforeseen_costs_the_others_nothing(desk, quickly, monkeypatch):
    shutil.copy(desk / "tiny.safetensors", desk / "other.safetensors")

    def failing(run, low, *, device):
        monkeypatch.setattr("relume.apps.evaluating.time_run", leaderboard.time_run)
        raise IndexError("no such\nplace")

    monkeypatch.setattr("relume.apps.evaluating.time_run", failing)
    done = quickly("tiny.safetensors", "other.safetensors", "--data", "set")
    assert done.exit_code == 1
    with (desk / "evaluation" / "leaderboard-sr-y.csv").open() as file:
        assert {row["model"] for row in csv.DictReader(file)} == {"other", "bicubic"}
    assert (desk / "evaluation" / "leaderboard-sr-y.png").is_file()
    *trace, last = done.stderr.strip().splitlines()
    assert last == (
        "error: tiny.safetensors: unexpected IndexError: no such place; this is a bug, please report it"
    )
    assert any("in failing" in line for line in trace)


def test_names_of_models_are_whole_on_a_narrow_terminal(desk, quickly):
    names = [f"a-weights-file-of-{count}.safetensors" for count in ("2000", "40000")]
    for name in names:
        shutil.copy(desk / "tiny.safetensors", desk / name)
    shutil.copytree(desk / "set", desk / "other")
    done = quickly(*names, "--data", "set", "--data", "other")
    assert done.exit_code == 0, done.output
    assert all(f" {name.removesuffix('.safetensors')} " in done.stdout for name in names)
    table = [line for line in done.stdout.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(table) >= 8
    assert max(map(len, table)) <= 80


def test_a_model_that_cannot_be_counted_has_its_row(desk, quickly, monkeypatch):
    shutil.copy(desk / "tiny.safetensors", desk / "other.safetensors")
    count = leaderboard.count_macs

    def counting(network, low):
        monkeypatch.setattr("relume.apps.evaluating.count_macs", count)
        raise leaderboard.UncountedError("multiply-accumulates cannot be counted: so")

    monkeypatch.setattr("relume.apps.evaluating.count_macs", counting)
    done = quickly("tiny.safetensors", "other.safetensors", "--data", "set")
    assert done.exit_code == 0, done.output
    with (desk / "evaluation" / "leaderboard-sr-y.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows["tiny"]["macs"] == "" != rows["tiny"]["seconds"]
    assert rows["other"]["macs"] != ""
    assert done.stderr == "note: tiny: multiply-accumulates cannot be counted: so\n"


def test_a_name_that_scales_share_is_its_default_variant(desk):
    if find_variant("cfsr-x4").weights_path is None:
        pytest.skip("cfsr-x4 comes without weights in this tree")
    done = evaluate(desk, "cfsr", "cfsr-x4", "--data", "set")
    assert {path.name for path in (desk / "evaluation").iterdir()} == {
        "cfsr-x4-sr-y.csv",
        "cfsr-x4-sr-y.json",
    }
    model = json.loads((desk / "evaluation" / "cfsr-x4-sr-y.json").read_text())["model"]
    assert (model["name"], model["file"]) == ("cfsr-x4", "cfsr-x4.safetensors")
    assert done.stdout.startswith("cfsr-x4, x4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a model or a weights file, or take --all"),
        (["tiny.safetensors", "--plot"], "--plot draws several models"),
        (["tiny.safetensors", "cfsr-x2", "--record"], "--record is for one model"),
        (["tiny.safetensors", "--set", "a=1"], "--set tells how to damage pictures"),
        (["tiny.safetensors", "--degradation", "haze"], "keeps the size"),
        (["tiny.safetensors", "--degradation", "bsrgam"], "did you mean 'bsrgan'"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(desk, arguments, message):
    done = evaluate(desk, *arguments, "--data", "set", expect=1)
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr


def test_a_broken_picture_is_named(desk):
    (desk / "set" / "b.png").write_bytes(b"no picture at all")
    done = evaluate(desk, "tiny.safetensors", "--data", "set", expect=1)
    assert "b.png" in done.stderr
    assert not (desk / "evaluation").exists()
