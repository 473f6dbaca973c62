"""The generated catalogue, and what importing relume costs."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from relume.apps import catalogue
from relume.core import catalogue as catalogue_of
from relume.core.catalogue import FILE, TRIALS, WEIGHTS, systems, variants
from relume.core.checkpoints import read_checkpoint, write_checkpoint
from relume.core.errors import RelumeError


def test_catalogue_is_not_stale():
    texts = catalogue.generated()
    for path, text in texts.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run: python -m relume.apps.catalogue"
    assert {FILE.name, "models.md", "cfsr.svg"} <= {path.name for path in texts}
    assert not catalogue.superfluous(texts)


def test_every_variant_is_found_under_its_name():
    for name, variant in variants().items():
        assert name in systems()[variant.system].variants
        assert variant.parameters > 0


def test_shipped_weights_lie_where_the_catalogue_says():
    for variant in variants().values():
        assert variant.weights_path is None or variant.weights_path.is_file()


def test_short_trainings_are_of_variants_without_weights_and_beat_bicubic():
    for path in TRIALS.glob("*.json"):
        variant = variants()[path.stem]
        assert variant.weights is None
        assert variant.trained["command"].startswith(f"relume train {path.stem} ")
        assert all(entry["psnr"] > entry["bicubic_psnr"] for entry in variant.measured)


def test_a_short_training_is_kept_without_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "TRIALS", tmp_path)
    shipped = WEIGHTS / "espcn-x3.safetensors"
    told = json.loads(catalogue.keep_trial(shipped).read_text())
    header, state = read_checkpoint(shipped)
    assert (tmp_path / "espcn-x3.json").exists()
    assert told["measured"] == list(header.measured)
    assert told["trained"]["command"] == header.trained["command"]
    assert told["trained"]["network"] == {}
    narrow = {**header.recipe, "network": {**header.recipe["network"], "width": 8}}
    changed = tmp_path / "changed.safetensors"
    write_checkpoint(changed, state, replace(header, recipe=narrow))
    trained = json.loads(catalogue.keep_trial(changed).read_text())["trained"]
    assert trained["network"] == {"width": 8}
    write_checkpoint(changed, state, replace(header, measured=()))
    with pytest.raises(RelumeError, match="relume evaluate WEIGHTS --record"):
        catalogue.keep_trial(changed)


def modules_after(statement: str) -> set[str]:
    script = f"{statement}\nimport json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_relume_is_light():
    assert not modules_after("import relume; dir(relume)") & {"torch", "numpy", "pydantic", "rich", "pyvips"}


def test_listing_models_needs_no_torch():
    listing = "from relume.apps import cli; from relume.core.catalogue import variants; variants()"
    assert not modules_after(listing) & {"torch", "pydantic", "pyvips", "numpy"}


def test_nothing_needs_torchvision():
    statement = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import pkgutil, importlib, relume\n"
        "for info in pkgutil.walk_packages(relume.__path__, 'relume.'):\n"
        "    importlib.import_module(info.name)"
    )
    assert "relume.recipes.cfsr" in modules_after(statement)


def test_variants_that_differ_in_scale_alone_share_a_name():
    families = catalogue_of.families()
    assert {scale: each.name for scale, each in families["cfsr"].items()} == {
        2: "cfsr-x2", 3: "cfsr-x3", 4: "cfsr-x4"
    }  # fmt: skip
    assert all(each.name == f"cfsr-x{scale}-photo" for scale, each in families["cfsr-photo"].items())
    assert {each.name for each in families["swinir-light"].values()} <= {
        "swinir-light-x2", "swinir-light-x3", "swinir-light-x4"
    }  # fmt: skip
    assert families["routed"] == families["cfsr-routed"]  # the only one of its system
    assert "nafnet" not in families  # several of one scale
    shipped = [each for family in families.values() for each in family.values() if each.weights]
    assert shipped
    for family in families.values():
        assert len({each.weights is None for each in family.values()}) == 1


def test_a_shared_name_is_told_from_a_variants():
    assert catalogue_of.is_family("cfsr")
    assert catalogue_of.is_family("nafnet")
    assert not catalogue_of.is_family("cfsr-x4")
    assert not catalogue_of.is_family("swinir-jpeg")  # alone in its family
    assert not catalogue_of.is_family("no-such-model")
