"""`relume train` as a user runs it: killed, resumed, refused, and what it leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from relume.core.checkpoints import read_checkpoint
from relume.core.pictures import Picture, read, write

TINY = ["--set", 'network.depths=[1]', "--set", "network.width=8", "--set", "network.kernel_size=3",
        "--set", "data.patch=8", "--set", "data.batch=2", "--set", "threads=1"]  # fmt: skip
SAVING = ["--set", "log_every=10", "--set", "save_every=10", "--set", "validate_every=30"]
SHORT = [*SAVING, "--set", "steps=60"]


@pytest.fixture
def desk(tmp_path):
    torch.manual_seed(0)
    for name in ("photos", "set"):
        (tmp_path / name).mkdir()
        for index in range(3):
            smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=64, mode="bicubic")[0]
            write(Picture(pixels=smooth.clamp(0, 1)), tmp_path / name / f"{index}.png")
    return tmp_path


def command(*arguments):
    return [sys.executable, "-m", "relume.apps.cli", "train", "cfsr-x2", *arguments]


def train(desk, *arguments, expect=0):
    done = subprocess.run(
        command(*arguments), cwd=desk, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done


def test_a_run_leaves_weights_curve_pictures_and_log(desk):
    done = train(desk, "--data", "photos", "--validation", "set", *TINY, *SHORT)
    run = desk / "runs" / "cfsr-x2"
    assert {path.name for path in run.iterdir()} >= {
        "best.safetensors", "cfsr-x2.safetensors", "curve.png", "log.jsonl", "pictures", "state.safetensors"
    }  # fmt: skip
    assert "step 60: validation" in done.stderr
    header, _ = read_checkpoint(run / "cfsr-x2.safetensors")
    assert header.steps == ("reparameterise",)
    assert header.recipe["steps"] == 60
    assert header.trained["pictures"] == 3
    assert header.trained["command"].startswith("relume train cfsr-x2 --data photos")
    validations = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in validations if "validation" in line] == [30, 60]
    assert read(run / "pictures" / "0-0000060.png").height > 64
    finished = train(desk, "--data", "photos", "--validation", "set", *TINY, *SHORT, expect=1)
    assert "finished (60 steps)" in finished.stderr


def test_killed_again_and_again_it_ends_with_the_weights_of_a_run_left_alone(desk):
    longer = ["--data", "photos", *TINY, *SAVING, "--set", "steps=1500"]
    train(desk, "--run", "alone", *longer)
    kills = 0
    while kills < 3:
        process = subprocess.Popen(
            command("--run", "killed", *longer), cwd=desk,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        state = desk / "killed" / "state.safetensors"
        before = state.stat().st_mtime_ns if state.exists() else 0
        # Killed at an odd moment once it has got further than the last one did.
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.02)
        time.sleep(0.137)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 1, "the run was over before it could be killed"
    done = train(desk, "--run", "killed", *longer)
    assert "going on after step" in done.stderr
    (alone, ours), (_, theirs) = (
        read_checkpoint(desk / name / "cfsr-x2.safetensors") for name in ("alone", "killed")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    steps = [json.loads(line)["step"] for line in (desk / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert alone.trained["step"] == 1500


def test_ctrl_c_saves_and_the_same_command_goes_on(desk):
    arguments = ["--data", "photos", *TINY, *SAVING, "--set", "steps=100000"]
    process = subprocess.Popen(
        command(*arguments), cwd=desk, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    log = desk / "runs" / "cfsr-x2" / "log.jsonl"
    while not (log.exists() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert (desk / "runs" / "cfsr-x2" / "state.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "photos", "--set", "stpes=3"], "no setting 'stpes'; did you mean 'steps'?"),
        (["--data", "photos", "--set", "optimiser.lr=3"], "did you mean 'optimiser.learning_rate'?"),
        (["--data", "photos", "--set", "steps=many"], "steps: Input should be a valid integer"),
        (["--data", "photos", "--set", "steps.x=1"], "holds one value"),
        (["--data", "photos", "--set", "steps"], "--set takes NAME=VALUE"),
        (["--data", "photos", "--budget", "cpus"], "unknown budget 'cpus'; did you mean 'cpu'?"),
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--data", "photos", "--run", "photos/0.png/run"], "cannot make the folder"),
        (["--data", "photos", "--start", "cfsr-x9"], "did you mean"),
        ([], "name a folder of photos with --data"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(desk, arguments, message):
    done = train(desk, *TINY, *SAVING, *arguments, expect=1)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_another_recipe_in_the_same_folder_is_refused(desk):
    train(desk, "--data", "photos", *TINY, *SHORT)
    done = train(desk, "--data", "photos", *TINY, *SHORT, "--set", "seed=7", expect=1)
    assert "holds a run with another recipe (it differs in seed)" in done.stderr


def test_a_broken_photo_among_good_ones_is_named(desk):
    (desk / "photos" / "1.png").write_bytes((desk / "photos" / "1.png").read_bytes()[:300])
    done = train(desk, "--data", "photos", *TINY, *SHORT, expect=1)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "1.png" in done.stderr


def test_weights_start_from_another_run(desk):
    train(desk, "--data", "photos", *TINY, *SHORT)
    shutil.copy(desk / "runs" / "cfsr-x2" / "cfsr-x2.safetensors", desk / "first.safetensors")
    started = ["--run", "second", "--start", "first.safetensors", "--set", "steps=1"]
    train(desk, "--data", "photos", *TINY, *SAVING, *started, "--set", "optimiser.learning_rate=1e-12")
    (_, first), (_, second) = (
        read_checkpoint(desk / name) for name in ("first.safetensors", "second/cfsr-x2.safetensors")
    )
    assert all((first[name] - second[name]).abs().max() < 1e-5 for name in first)


def test_a_network_that_the_start_does_not_fit_is_refused_and_part_of_one_is_told(desk):
    arguments = ["--data", "photos", "--set", "data.patch=4", "--set", "data.batch=1", "--set", "threads=1"]
    refused = train(desk, *arguments, *SAVING, "--set", "steps=1", "--start", "cfsr-x2", "--run", "narrow",
                    "--set", "network.width=8", expect=1)  # fmt: skip
    assert "only 0% can start from cfsr-x2; choose another --start, or --start none" in refused.stderr
    partly = train(desk, *arguments, *SAVING, "--set", "steps=1", "--start", "cfsr-x2", "--run", "deeper",
                   "--set", "network.depths=[6,7]")  # fmt: skip
    assert "starting from cfsr-x2: 9" in partly.stderr
    header, _ = read_checkpoint(desk / "deeper" / "cfsr-x2.safetensors")
    assert 0.9 < header.trained["taken_over"] < 1


def test_other_photos_in_the_same_folder_are_another_run(desk):
    train(desk, "--data", "photos", *TINY, *SHORT)
    (desk / "photos" / "2.png").unlink()
    done = train(desk, "--data", "photos", *TINY, *SHORT, expect=1)
    assert "it differs in photos" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_a_disk_that_fills_is_one_line(desk):
    import resource

    done = subprocess.run(
        command("--data", "photos", *TINY, *SHORT), cwd=desk, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "the file would be larger than the system allows" in done.stderr
    run = desk / "runs" / "cfsr-x2"
    assert not [
        path for path in run.iterdir() if path.name.endswith(".part") or path.suffix == ".safetensors"
    ]


def test_show_recipe_prints_what_would_run(desk):
    done = train(desk, "--data", "photos", "--set", "data.batch=2", "--show-recipe")
    recipe = json.loads(done.stdout)
    assert recipe["data"]["batch"] == 2
    assert recipe["variant"] == "cfsr-x2"
    assert not (desk / "runs").exists()
