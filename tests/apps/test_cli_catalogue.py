"""Commands that tell what is here, and how lightly the package starts."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys

import pytest

from commanding import COMMAND, environment
from relume.apps import commands, models_page
from relume.core.catalogue import FILE, figure_of, systems, variants

MODULES = (
    "import sys; print(' '.join(m for m in ('torch', 'pydantic', 'numpy', 'pyvips') if m in sys.modules))"
)


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    ).stdout


def test_importing_relume_imports_nothing_heavy():
    assert python(f"import relume, relume.core.errors; {MODULES}").strip() == ""


def test_help_and_lists_start_lightly():
    for args in (["--help"], ["upscale", "--help"], ["models"], ["methods", "--json"], ["show", "cfsr"]):
        code = (
            f"import sys; sys.argv = ['relume', *{args!r}]\n"
            "from relume.apps.cli import main\n"
            "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
            "print()\n" + MODULES
        )
        # For a command's own options, newer versions of Typer import pydantic by themselves.
        heavy = {"torch", "pydantic"} if args == ["--help"] else {"torch"}
        assert not heavy & set(python(code).splitlines()[-1].split()), args


def test_help_names_every_command(tmp_path, relume):
    done = relume("--help", cwd=tmp_path)
    assert done.returncode == 0
    files = {info.name.replace("_", "-") for info in pkgutil.iter_modules(commands.__path__)}
    assert {"upscale", "check-tiling"} < files
    assert all(f" {name} " in done.stdout for name in {*files, "methods", "show"})
    assert relume("--version", cwd=tmp_path).stdout.startswith("relume 0.")


def test_what_takes_cubes_is_shown_with_commands_for_cubes(tmp_path, relume):
    shown = relume("show", "essaformer", cwd=tmp_path).stdout
    assert "relume train essaformer-128-x2 --data FOLDER_OF_CUBES\n" in shown
    assert "relume upscale CUBE.mat -n FILE\n" in shown
    assert ", 1 cube of " in shown
    system = json.loads(FILE.read_text("utf-8"))["systems"]
    page = models_page.page([each for each in system if each["name"] == "essaformer"])
    assert "relume train essaformer-128-x2 --data cubes/ " in page
    assert "relume upscale cube.mat -n weights.pth " in page
    assert " on 1 cube of " in page
    assert {each.name for each in variants().values() if each.cubes} == {*systems()["essaformer"].variants}
    shown = relume("show", "hat", cwd=tmp_path).stdout
    assert "relume train hat-x2 --data FOLDER\n" in shown
    assert "relume upscale PICTURE -n FILE\n" in shown


def test_models_lists_those_with_weights(tmp_path, relume):
    done = relume("models", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    listed = json.loads(done.stdout)
    assert {each["name"] for each in listed} == {each.name for each in variants().values() if each.weights}
    text = relume("models", cwd=tmp_path).stdout
    assert all(each["name"] in text and f"{each['parameters']:,}" in text for each in listed)
    assert listed or "relume train" in text


def test_models_lists_all_if_asked(tmp_path, relume):
    listed = json.loads(relume("models", "--all", "--json", cwd=tmp_path).stdout)
    assert [each["name"] for each in listed] == list(variants())
    assert {each["name"] for each in listed if each["weights"] is None} == {
        name for name, each in variants().items() if not each.weights
    }
    lines = relume("models", "--all", cwd=tmp_path, env={"COLUMNS": "200"}).stdout.splitlines()
    (line,) = [line for line in lines if " swinir-x4 " in line]
    assert "none" in line


def test_messages_send_to_a_list_that_has_what_they_ask_for(tmp_path, relume):
    asked = relume("train", "swinir-x44", cwd=tmp_path).stderr
    assert "did you mean 'swinir-x4'? (list them: relume models --all)" in asked
    assert "a variant from `relume models --all`" in " ".join(
        relume("train", "--help", cwd=tmp_path, env={"COLUMNS": "200"}).stdout.split()
    )


def test_methods_lists_every_system(tmp_path, relume):
    done = relume("methods", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each["name"] for each in json.loads(done.stdout)] == list(systems())
    text = relume("methods", cwd=tmp_path, env={"COLUMNS": "600"}).stdout
    assert all(each.card["title"] in text for each in systems().values())


def test_show_tells_of_a_system_and_of_a_variant(tmp_path, relume):
    whole = relume("show", "cfsr", cwd=tmp_path)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert all(
        text in whole.stdout for text in ("2401.05633", "cfsr-x2", "cfsr-x3", "cfsr-x4", "32.33 / 0.8964")
    )
    one = relume("show", "cfsr-x4", cwd=tmp_path)
    assert "306,912 parameters" in one.stdout
    assert "cfsr-x2  x2" not in one.stdout
    assert "[bold]" not in whole.stdout + one.stdout


def test_show_says_how_to_switch_a_strategy_on_and_what_a_file_is(tmp_path, relume):
    for name, word in (("pcl_sr", "objective=pcl_sr"), ("multi_output", "objective=multi_output"),
                       ("tunable", '"name": "tunable"'), ("dcpt", "--budget pretrain")):  # fmt: skip
        assert word in relume("show", name, cwd=tmp_path).stdout
    weights = next(each.weights_path for each in variants().values() if each.weights)
    told = relume("show", weights, cwd=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    assert weights.stem in told.stdout
    assert "sha256" in told.stdout


def test_show_tells_the_same_of_every_system(tmp_path, relume):
    for name in ("hat", "tunable", "dncnn"):
        system = systems()[name]
        told = relume("show", name, cwd=tmp_path, env={"COLUMNS": "200"}).stdout
        assert system.card["summary"] in told
        assert system.card["when"] in told
        assert all(each in told for each in system.variants)
        assert (f"{figure_of(name)}, or relume show" in told) == bool(system.variants)
    assert "no weights with us for hat-x2" in relume("show", "hat-x2", cwd=tmp_path).stdout
    assert "use it: relume upscale photo.jpg -n cfsr-x4\n" in relume("show", "cfsr-x4", cwd=tmp_path).stdout


def test_show_tells_of_variants_that_share_a_name(tmp_path, relume):
    told = relume("show", "swinir-light", cwd=tmp_path).stdout
    assert all(f"swinir-light-x{scale}  x{scale}" in told for scale in (2, 3, 4))
    assert "swinir-x2  x2" not in told


def test_show_draws_a_variant_and_a_file(tmp_path, relume):
    weights = variants()["espcn-x3"].weights_path
    for name, path in (("espcn-x2", "a.svg"), (weights, "b.svg")):
        done = relume("show", name, "--figure", path, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(f"{name} → {path}\n")
    drawings = [(tmp_path / path).read_text(encoding="utf-8") for path in ("a.svg", "b.svg")]
    assert ["3 · " not in drawings[0], "1 · 2H×2W" in drawings[0]] == [True, True]
    assert "espcn-x3" in drawings[1]
    assert "1 · 3H×3W" in drawings[1]


def test_show_keeps_a_drawing_unless_told(tmp_path, relume, refused):
    (tmp_path / "a.svg").write_text("mine")
    refused("show", "espcn-x2", "--figure", tmp_path / "a.svg", says=("a.svg", "--overwrite"))
    assert (tmp_path / "a.svg").read_text() == "mine"
    relume("show", "espcn-x2", "--figure", "a.svg", "--overwrite", cwd=tmp_path)
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<svg")


def test_show_proposes_the_nearest_name(refused):
    refused("show", "cfrs", says=("'cfrs'", "did you mean 'cfsr'"))


@pytest.mark.parametrize("command", [["models"], ["methods", "--json"], ["show", "cfsr"]])
@pytest.mark.skipif(sys.platform == "win32", reason="pipes close otherwise there")
def test_a_reader_that_has_gone_is_no_error(tmp_path, command):
    with subprocess.Popen(
        [*COMMAND, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) in (0, 1)


def test_doctor_finds_this_installation_sound(tmp_path, relume):
    done = relume("doctor", cwd=tmp_path, env={"COLUMNS": "200"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("all is well\n")
    rows = ("torch", "pyvips", "safetensors", "avif", "jpeg", "png", "tiff", "webp", "CPU", "GPU")
    assert all(f" {name} " in done.stdout for name in (*rows, *variants()))
    assert "[green]" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_doctor_tells_how_to_mend_what_is_missing_and_what_is_broken(tmp_path, relume):
    """Libraries in front of the real ones: an optional one that is not there, a needed one that fails."""
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    (tmp_path / "accelerate.py").write_text("raise ModuleNotFoundError('no accelerate', name='accelerate')")
    (tmp_path / "safetensors.py").write_text("raise OSError('cannot load [libfoo.so]\\nof the wrong kind')")
    done = relume("doctor", cwd=tmp_path, env={"COLUMNS": "200", "PYTHONPATH": path})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "broken: cannot load [libfoo.so] of the wrong kind" in done.stdout
    assert "pip install 'relume[train]'" in done.stdout
    assert "pip install --force-reinstall safetensors" in done.stdout
    assert "something that relume needs is broken" in done.stdout
