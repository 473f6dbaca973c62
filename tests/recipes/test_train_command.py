"""`relume train` as a user runs it: killed, resumed, refused, and what it leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from relume.core.checkpoints import read_checkpoint
from relume.core.pictures import Picture, read, write

TINY = ["--set", 'network.depths=[1]', "--set", "network.width=8", "--set", "network.kernel_size=3",
        "--set", "data.patch=8", "--set", "data.batch=2", "--set", "threads=1"]  # fmt: skip
WEIGHTED = ["--set", "objective=weighted", "--set"]
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
    # The folder is the usual one, named.
    done = train(desk, "--data", "photos", "--run", "runs/cfsr-x2", "--validation", "set", *TINY, *SHORT)
    run = desk / "runs" / "cfsr-x2"
    assert {path.name for path in run.iterdir()} >= {
        "best.safetensors", "cfsr-x2.safetensors", "curve.png", "log.jsonl", "pictures", "state.safetensors"
    }  # fmt: skip
    assert "step 60: validation" in done.stderr
    header, _ = read_checkpoint(run / "cfsr-x2.safetensors")
    assert header.steps == ("reparameterise",)
    assert header.recipe["steps"] == 60
    assert header.trained["pictures"] == 3
    assert header.trained["command"].startswith("relume train cfsr-x2 --data photos --validation")
    validations = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in validations if "validation" in line] == [30, 60]
    assert read(run / "pictures" / "0-0000060.png").height > 64
    finished = train(desk, "--data", "photos", "--validation", "set", *TINY, *SHORT, expect=1)
    assert "finished (60 steps)" in finished.stderr


def test_ctrl_c_saves_and_the_same_command_goes_on(desk):
    arguments = ["--data", "photos", *TINY, *SAVING, "--set", "steps=100000"]
    process = subprocess.Popen(
        command(*arguments), cwd=desk, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    log = desk / "runs" / "cfsr-x2" / "log.jsonl"
    while not (log.exists() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.05)
    if os.name != "nt":
        other = train(desk, *arguments, expect=1)
        assert "error: another training is at work in runs/cfsr-x2; wait for it or choose" in other.stderr
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"^stopped after step \d+ of 100000; the same command goes on$", errors, re.MULTILINE)
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
        (
            ["--data", "photos", "--set", "degradation=bicubik"],
            "did you mean 'bicubic'?",
        ),
        (["--data", "photos", "--set", "objective.epsilom=1"], "did you mean 'objective.epsilon'?"),
        (
            ["--data", "photos", "--set", "accumulate=4"],
            "evenly for 1 process with accumulate=4; 4 can",
        ),
        (["--data", "photos", "--set", "objective=routing"], "needs a network with one router"),
        (["--data", "photos", "--budget", "cpus"], "unknown budget 'cpus'; did you mean 'cpu'?"),
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--data", "photos", "--run", "photos/0.png/run"], "cannot make the folder"),
        (["--data", "photos", "--start", "cfsr-x9"],
         "error: recipe of cfsr-x2: start: unknown model 'cfsr-x9'; did you mean 'cfsr-x"),
        (["--data", "photos", *WEIGHTED, "objective.adversarial.start=no.pth"],
         "error: recipe of cfsr-x2: objective.adversarial.start: "),
        (["--data", "photos", *WEIGHTED, "objective.distillation.teacher=cfsr-x9"],
         "error: recipe of cfsr-x2: objective.distillation.teacher: unknown model 'cfsr-x9'; did you mean"),
        (["--data", "photos", *WEIGHTED, "objective.distillation.teacher=cfsr-x3"],
         "error: recipe of cfsr-x2: objective.distillation.teacher: cfsr-x3 gives pictures of shape"),
        (["--data", "photos", *WEIGHTED, 'objective.parts=["l1", {"name": "perceptual", "encoder": "a"}]'],
         "error: recipe of cfsr-x2: objective.parts.1: "),
        (["--data", "photos", "--set", "steps=true"], "steps: a number or a word is wanted"),
        (["--data", "photos", "--set", "seed=18446744073709551616"], "seed: Input should be less than or eq"),
        (["--data", "photos", "--set", "steps=1000000000000", "--dry-run"], "steps: Input should be less"),
        (["--data", "photos", "--set", 'data.folders=["set"]'], "--data and --set data.folders both say"),
        (["--data", "photos", "--set", 'data={"folders": ["set"]}'], "--data and --set data.folders both"),
        (["--start", "cfsr-x2", "--set", "start=cfsr-x2"], "--start and --set start both say"),
        ([], "name a folder of photos with --data"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_one_line(desk, arguments, message):
    done = train(desk, *TINY, *SAVING, *arguments, expect=1)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.batch=10000000", "GiB is free on cpu; lower data.batch or data.patch, or raise accumulate"),
        ("data.patch=400", "too small for a patch of 808x808"),
        ("threads=100000", "threads: 100000 are too many for this machine; choose 1 … "),
        ("data.workers=100000", "data.workers: 100000 are too many for this machine; choose 1 … "),
        (
            "network.channels=4",
            "photos holds no cube (.mat, .npy); network.channels=4 asks for cubes, and for "
            "photos 1 or 3 are right",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_it_starts(desk, setting, message):
    more = ["--set", "data.patch=8"] if "patch" not in setting else []
    done = train(desk, "--data", "photos", "--set", setting, *more, expect=1)
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr
    assert not (desk / "runs").exists()


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
    (before, first), (after, second) = (
        read_checkpoint(desk / name) for name in ("first.safetensors", "second/cfsr-x2.safetensors")
    )
    assert all((first[name] - second[name]).abs().max() < 1e-5 for name in first)
    assert after.trained["start_sha256"] == before.sha256
    again = train(desk, "--data", "photos", *TINY, *SAVING, "--start", "second/cfsr-x2.safetensors", "--run",
                  "third", "--set", "steps=1")  # fmt: skip
    assert "100%" in again.stderr
    third = read_checkpoint(desk / "third" / "cfsr-x2.safetensors")[0].trained
    assert [(each["variant"], each["of_steps"], "--run" in each["command"]) for each in third["before"]] == [
        (None, 60, False),  # so small a network is none of the variants
        (None, 1, False),
    ]
    # The same name with other weights behind it is another start.
    shutil.copy(desk / "second" / "cfsr-x2.safetensors", desk / "first.safetensors")
    refused = train(
        desk, "--data", "photos", *TINY, *SAVING, *started, "--set", "optimiser.learning_rate=1e-12", expect=1
    )
    assert "it differs in start_sha256" in refused.stderr


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


def test_show_recipe_prints_what_would_run_and_it_loads_back(desk):
    arguments = ["--data", "photos", "--set", "data.batch=2", "--set", "objective=mse", "--budget", "gpu"]
    done = train(desk, *arguments, "--show-recipe")
    recipe = yaml.safe_load(done.stdout)
    assert recipe["data"]["batch"] == 2
    assert recipe["variant"] == "cfsr-x2"
    assert recipe["objective"]["name"] == "mse"
    assert not (desk / "runs").exists()
    (desk / "mine.yaml").write_text(done.stdout)
    again = subprocess.run(
        [*command()[:-1], "mine.yaml", "--show-recipe"], cwd=desk, capture_output=True, text=True, timeout=300
    )
    assert again.stdout == done.stdout


def test_a_recipe_as_yaml_runs_under_its_own_name(desk):
    (desk / "small.yaml").write_text(
        "variant: cfsr-x2\nsteps: 4\nthreads: 1\nnetwork: {width: 8, depths: [1], kernel_size: 3}\n"
        "data: {folders: [photos], patch: 8, batch: 4}\nobjective: {name: mse}\naccumulate: 2\n"
    )
    subprocess.run(
        [*command()[:-1], "small.yaml", "--set", "seed=5"],
        cwd=desk,
        check=True,
        capture_output=True,
        timeout=300,
    )
    header, _ = read_checkpoint(desk / "runs" / "small" / "cfsr-x2.safetensors")
    assert header.recipe["objective"] == {"name": "mse", "epsilon": 1e-3}
    assert (header.recipe["seed"], header.recipe["accumulate"]) == (5, 2)
    assert header.recipe["optimiser"]["learning_rate"] == 2e-3


def test_a_dry_run_tells_what_it_takes_and_leaves_nothing(desk):
    before = sorted(desk.rglob("*"))
    done = train(desk, "--data", "photos", "--validation", "set", *TINY, "--set", "steps=5000", "--dry-run")
    assert sorted(desk.rglob("*")) == before
    recipe, told = done.stdout.split("\n\n")
    assert yaml.safe_load(recipe)["steps"] == 5000
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in told.strip().splitlines())
    assert list(rows) == ["parameters", "multiply-accumulates", "batch", "memory", "memory in use", "time",
                          "waiting for data", "a validation", "the whole run"]  # fmt: skip
    assert re.match(r"[\d.e-]+ s a step \(median of 10\)", rows["time"])
    assert "for 5,000 steps" in rows["the whole run"]


def test_what_a_run_meant_for_another_machine_needs_is_told_without_it(desk):
    lacking = ["--data", "photos", *(each.replace("data.batch=2", "data.batch=100000000") for each in TINY)]
    done = train(desk, *lacking, "--dry-run", "--budget", "gpu")
    recipe, told = done.stdout.split("\n\n")
    assert yaml.safe_load(recipe)["data"]["batch"] == 100_000_000
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in told.strip().splitlines())
    assert list(rows) == ["parameters", "multiply-accumulates", "batch", "memory", "time"]
    assert re.fullmatch(
        r"[\d.]+ GiB estimated beside what is held now, [\d.]+ [GM]iB free, on cpu", rows["memory"]
    )
    assert re.match(r"cannot be taken on this machine: training needs about .* GiB of memory", rows["time"])
    refused = train(desk, *lacking, expect=1)
    assert "GiB is free on cpu; lower data.batch" in refused.stderr


def test_time_taken_on_a_cpu_for_a_gpus_budget_says_so(desk):
    settings = ("--data", "photos", *TINY, "--set", "data.workers=0", "--set", "device=cpu", "--dry-run")
    for budget, told in (("gpu", True), ("cpu", False)):
        (line,) = (
            line
            for line in train(desk, *settings, "--budget", budget).stdout.splitlines()
            if line.startswith("time ")
        )
        assert ("on the CPU of this machine, while the budget is meant for a GPU" in line) == told


def test_settings_that_change_no_weights_may_differ_when_it_goes_on(desk):
    train(desk, "--data", "photos", *TINY, *SHORT)
    run = desk / "runs" / "cfsr-x2"
    (run / "cfsr-x2.safetensors").unlink()
    train(desk, "--data", "photos", *TINY, *SHORT, "--set", "keep=2", "--set", "data.memory_gib=1")
    assert (run / "cfsr-x2.safetensors").exists()
