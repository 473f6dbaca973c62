"""Every engine gives what PyTorch gives, or says why it cannot."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch

from relume.core.errors import RelumeError, UnknownNameError
from relume.core.signal_stack import own_signal_stack
from relume.infer import choosing
from relume.infer.choosing import make_ready, quickest
from relume.infer.engines import engines
from relume.infer.engines.base import Engine, EngineError, Place
from relume.infer.exporting import export
from relume.infer.guard import Guarded
from relume.infer.measuring import check, measure
from relume.models import zoo
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.nn.network import Network
from relume.nn.surgery import apply_steps

QUICK = [name for name, kind in engines().items() if not kind.slow_to_make]


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = CFSR(CFSRConfig(scale=2, width=8, depths=(1, 1), kernel_size=3))
    with torch.no_grad():
        for parameter in network.parameters():  # layer scales as built switch the layers off
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return apply_steps(network, ("reparameterise",)).eval()


def usable(name: str) -> type[Engine]:
    kind = engines()[name]
    if reason := kind.missing():
        pytest.skip(reason)
    return kind


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (33, 17)])
def test_an_engine_gives_what_pytorch_gives(name, size, network):
    engine = usable(name)(network, Place())
    low = torch.rand(2, 3, *size)
    with torch.inference_mode():
        expected = network(low)
    assert (engine(low) - expected).abs().max() <= 1e-4
    assert (engine.scale, engine.channels, engine.halo) == (2, 3, network.contract.halo)


@pytest.mark.parametrize("name", QUICK)
def test_a_tile_cut_out_of_a_picture_gives_what_it_gives_alone(name, network):
    """No engine reads a copy that is gone; what it would find there depends on what else is in memory."""
    engine = usable(name)(network, Place())
    picture = torch.rand(3, 40, 64)
    for side in range(4, 40, 2):
        with torch.inference_mode():
            expected = network(picture[None, :, :side, :side])
        assert (engine(picture[None, :, :side, :side]) - expected).abs().max() <= 1e-4, side


def test_one_compiled_ahead_of_time_is_kept(network, monkeypatch):
    kind = usable("compile")
    first = kind(network, Place())
    assert check(first, network) <= 1e-4
    monkeypatch.setattr(torch.export, "export", None)  # nothing may be compiled again
    low = torch.rand(1, 3, 31, 18)
    assert torch.equal(kind(network, Place())(low), first(low))


class Shifted(Engine):
    """PyTorch with something added, as a broken converter would."""

    name = "shifted"

    def __init__(self, network, place, shift):
        super().__init__(network, place)
        self.network, self.shift = network, shift

    @torch.no_grad()
    def __call__(self, low):
        return self.network(low) + self.shift


@pytest.mark.parametrize("shift", [2e-4, float("nan"), float("inf")])
def test_an_engine_that_disagrees_is_refused(shift, network):
    with pytest.raises(EngineError, match="differs from PyTorch"):
        check(Shifted(network, Place(), shift), network)
    assert check(Shifted(network, Place(), 5e-5), network) < 1e-4


def test_the_quickest_is_measured_once_and_remembered(network, monkeypatch, tmp_path):
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path))
    monkeypatch.setattr(choosing, "engines", lambda: {name: engines()[name] for name in ("torch", "native")})
    told: list[str] = []
    chosen = quickest(network, Place(), say=told.append)
    (seconds,) = json.loads((tmp_path / "engines.json").read_text()).values()
    able = {name: each for name, each in seconds.items() if each is not None}
    assert chosen == min(able, key=able.get)
    assert len(told) == 1
    assert quickest(network, Place(), say=told.append) == chosen
    assert len(told) == 1
    assert make_ready(network, engine="auto", place=Place()).name == chosen
    # What is remembered decides, so nothing was measured anew.
    swapped = {
        key: {"torch": 1.0, "native": None} for key in json.loads((tmp_path / "engines.json").read_text())
    }
    (tmp_path / "engines.json").write_text(json.dumps(swapped))
    assert quickest(network, Place()) == "torch"
    for damaged in ("{", "5", json.dumps(dict.fromkeys(swapped, 5))):
        (tmp_path / "engines.json").write_text(damaged)
        assert quickest(network, Place()) in able


def test_without_a_cache_folder_engines_work_and_it_is_said(network, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path / "file" / "cache"))
    told: list[str] = []
    name = "onnxruntime" if engines()["onnxruntime"].missing() is None else "torch"
    made = make_ready(network, engine=name, place=Place(), say=told.append)
    assert check(made, network) <= 1e-4
    assert (name == "torch") == (not any("cache folder cannot be used" in line for line in told))


@pytest.mark.parametrize("threads", [0, 2000])
def test_numbers_of_threads_that_make_no_sense_are_refused(threads):
    with pytest.raises(RelumeError, match=f"{threads} threads make no sense"):
        Place(threads=threads)


def test_no_numbers_in_short_arithmetic_at_once_are_computed_in_fp32(network, monkeypatch):
    class Broken(Shifted):
        devices, precisions = ("cpu",), ("fp32", "bf16")

        def __init__(self, network, place):
            super().__init__(network, place, 0.0 if place.precision == "fp32" else math.nan)

    monkeypatch.setattr(choosing, "engines", lambda: {"shifted": Broken})
    told: list[str] = []
    made = make_ready(network, engine="shifted", place=Place(precision="bf16"), say=told.append)
    assert made.place.precision == "fp32"
    assert "going on in fp32" in told[-1]


def test_a_model_that_another_process_cannot_load_is_measured_here(network, monkeypatch, tmp_path):
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path))
    monkeypatch.setattr(choosing, "engines", lambda: {name: engines()[name] for name in ("torch", "native")})

    class Local(CFSR):
        pass

    local = Local(network.config).eval()
    told: list[str] = []
    assert quickest(local, Place(), say=told.append) in ("torch", "native")
    assert "cannot be measured in a process of their own" in told[-1]


def test_the_environment_names_the_engine_where_nobody_does(network, monkeypatch):
    monkeypatch.setenv("RELUME_ENGINE", "torch")
    assert make_ready(network).name == "torch"
    monkeypatch.setenv("RELUME_ENGINE", "abacus")
    with pytest.raises(UnknownNameError, match="abacus"):
        make_ready(network)


def test_a_package_that_is_not_installed_is_named(network, monkeypatch):
    monkeypatch.setattr(engines()["openvino"], "package", "no_such_package")
    with pytest.raises(EngineError, match="needs the package no_such_package"):
        make_ready(network, engine="openvino", place=Place())
    (result,) = measure(network, ["openvino"], Place())
    assert "no_such_package" in result.reason


@pytest.mark.parametrize(
    ("engine", "place", "says"),
    [
        ("native", Place(device="cuda"), "it runs on cpu, not on cuda"),
        ("onnxruntime", Place(precision="fp16"), "it computes in fp32, not in fp16"),
        ("torch", Place(precision="fp16"), "fp16 is for GPUs"),
        ("torch", Place(device="abacus"), "cannot run on the device 'abacus'"),
    ],
)
def test_what_an_engine_cannot_do_is_told(engine, place, says, network):
    with pytest.raises(EngineError, match=says):
        make_ready(network, engine=engine, place=place)


class Elsewhere(CFSR):
    """A network that the native kernels do not cover."""

    def folded(self):
        return self


def test_the_native_engine_names_what_it_covers(network):
    other = Elsewhere(CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=3)).eval()
    with pytest.raises(EngineError, match="cover CFSR alone so far"):
        make_ready(other, engine="native", place=Place())


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_is_near(name, network):
    kind = usable(name)
    engine = kind(network, Place(precision="bf16"))
    difference = check(engine, network)
    assert 1e-6 < difference < 5e-2
    assert str(engine) == f"{name} on cpu in bf16"


class Overflowing(Shifted):
    """Gives infinity for bright pictures, as fp16 does for large activations."""

    @torch.no_grad()
    def __call__(self, low):
        return self.network(low) / (0.0 if low.mean() > 0.9 else 1.0)


def test_what_short_arithmetic_cannot_hold_is_computed_in_fp32(network):
    told: list[str] = []
    guarded = Guarded(
        Overflowing(network, Place(precision="fp16"), 0), network, Place(precision="fp16"), say=told.append
    )
    with torch.inference_mode():
        for bright in (0.3, 1.0, 1.0):
            low = torch.full((1, 3, 6, 5), bright)
            assert torch.allclose(guarded(low), network(low), atol=1e-5)
    assert len(told) == 1
    assert "fp32" in told[0]


@pytest.mark.parametrize(("form", "package"), [("onnx", "onnx"), ("openvino", "openvino"), ("ncnn", "ncnn")])
def test_an_exported_file_runs_elsewhere(form, package, network, tmp_path):
    pytest.importorskip(package)
    written, difference = export(network, form, tmp_path / "model")
    assert all(path.is_file() for path in written)
    assert difference <= 1e-4
    low = torch.rand(1, 3, 9, 14)
    with torch.inference_mode():
        expected = network(low)
    assert (RUN[form](written, low) - expected).abs().max() <= 1e-4
    assert sorted(tmp_path.iterdir()) == sorted(written)


def _by_onnxruntime(paths, low):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(paths[0])
    assert session.get_modelmeta().custom_metadata_map["scale"] == "2"
    assert session.get_inputs()[0].shape == [1, 3, "height", "width"]
    return torch.from_numpy(session.run(None, {"input": low.numpy()})[0])


def _by_openvino(paths, low):
    import openvino

    # By itself it computes in bf16 where the processor can.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    with own_signal_stack():
        compiled = openvino.compile_model(paths[0], "CPU", exact)
    return torch.from_numpy(compiled([low.numpy()])[0])


def _by_ncnn(paths, low):
    import ncnn
    import numpy as np

    net = ncnn.Net()
    net.load_param(str(paths[0]))
    net.load_model(str(paths[1]))
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(low[0].numpy()).clone())
    return torch.from_numpy(np.array(extractor.extract("out0")[1]))[None]


RUN = {"onnx": _by_onnxruntime, "openvino": _by_openvino, "ncnn": _by_ncnn}


def test_a_damaged_file_in_the_cache_is_made_anew(network, monkeypatch, tmp_path):
    usable("onnxruntime")
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path))
    make_ready(network, engine="onnxruntime", place=Place())
    (kept,) = (tmp_path / "onnx").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(EngineError, match="cannot take the model"):
        make_ready(network, engine="onnxruntime", place=Place())
    make_ready(network, engine="onnxruntime", place=Place())


def test_no_engine_imports_its_package_until_it_is_used():
    code = (
        "import sys, relume.infer.engines as e; e.engines(); "
        "print([n for n in ('onnxruntime', 'openvino', 'ncnn', 'onnx') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="only there it is seen to")
def test_a_signal_is_heard_after_openvino_has_let_go_of_several_models(tmp_path):
    usable("openvino")
    code = (
        "import faulthandler, os, signal\n"
        "from relume.infer.choosing import make_ready\n"
        "from relume.infer.engines.base import Place\n"
        "from relume.models import zoo\n"
        "faulthandler.enable()\n"  # it gives signals a stack of their own
        "signal.signal(signal.SIGUSR1, lambda *_: print('heard'))\n"
        "network, _ = zoo.load('cfsr-x2')\n"
        "first, second = (make_ready(network, engine='openvino', place=Place()) for _ in range(2))\n"
        "del first\n"
        "del second\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    environment = {**os.environ, "RELUME_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "")


_SCARCE = """
import resource, sys
import torch
from relume.infer.choosing import make_ready
from relume.infer.engines.base import Place
from relume.models import zoo

torch.set_num_threads(1)
network = zoo.load("cfsr-x2")[0]
engine = make_ready(network, engine=sys.argv[1], place=Place(threads=1))
low = torch.rand(1, 3, 200, 200)
with torch.no_grad():
    whole = {side: network(low[..., :side, :side]) for side in (20, 60, 200)}
unlimited = resource.getrlimit(resource.RLIMIT_AS)
for further in (0, 1, 2, 3, 5, 8, 10, 20, 40, 70, 90, 120, 250):
    now = int(open("/proc/self/status").read().split("VmSize:")[1].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (now + (further << 20), unlimited[1]))
    found = {}
    for side in (60, 200, 60, 20, 20):
        try:
            output = engine(low[..., :side, :side])
        except (MemoryError, RuntimeError) as error:
            output = str(error)
        found.setdefault(side, []).append(output)
    resource.setrlimit(resource.RLIMIT_AS, unlimited)
    for side, outputs in found.items():
        for output in outputs:
            if isinstance(output, str):
                print("failed", output)
            elif output.shape != whole[side].shape or (output - whole[side]).abs().max() > 1e-4:
                print("wrong", tuple(output.shape), side)
assert (engine(low) - whole[200]).abs().max() < 1e-4
print("right")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of address space")
@pytest.mark.parametrize("name", QUICK)
def test_where_memory_runs_out_an_engine_says_so_and_recovers(name):
    usable(name)
    # The native kernels work on a few rows at a time, for which the C library has kept enough otherwise.
    handed_back = {"MALLOC_MMAP_THRESHOLD_": "65536"} if name == "native" else {}
    done = subprocess.run(
        [sys.executable, "-c", _SCARCE, name],
        capture_output=True, text=True, check=False, env={**os.environ, **handed_back},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *failed, last = done.stdout.splitlines()
    assert last == "right"
    assert not [line for line in failed if line.startswith("wrong")]
    assert failed


def test_ncnn_through_vulkan(network):
    """Needs a Vulkan driver; Mesa's, which runs on the CPU (package mesa-vulkan-drivers), will do."""
    kind = usable("ncnn")
    try:
        engine = kind(network, Place(device="vulkan"))
    except EngineError as error:
        pytest.skip(str(error))
    assert 0 < check(engine, network) <= engine.tolerance == 1e-3
    assert str(engine) == "ncnn on vulkan"
    with pytest.raises(EngineError, match="there is no vulkan:99"):
        kind(network, Place(device="vulkan:99"))


@pytest.mark.parametrize("effort", [0.0, 0.5, 1.0])
def test_the_native_kernels_take_their_part_of_a_larger_model(effort):
    network = zoo.build(zoo.variant("cfsr-routed-x4").config, system="routed").eval()
    network.effort = effort
    engine = make_ready(network, engine="native", place=Place())
    low = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (engine(low) - network(low)).abs().max() <= 1e-4
    assert isinstance(network.heavy, CFSR)
