"""Losses on features: the equations on plain loops, any encoder, and what is no encoder."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from relume.core.errors import CheckpointError, ConfigError, UnknownNameError
from relume.measures.losses.contextual import ContextualLossConfig, contextual
from relume.measures.losses.distillation import attention_distance
from relume.measures.losses.features import FeatureLoss
from relume.measures.losses.perceptual import PerceptualLossConfig
from relume.models import zoo
from relume.nn.encoders.base import TappedEncoder
from relume.nn.encoders.opening import no_models, open_encoder
from relume.nn.encoders.vgg import VGG, VGGConfig


def load(name):
    return zoo.load(name)[0]


def vgg_file(folder, **changes):
    torch.manual_seed(0)
    encoder = VGG(VGGConfig(widths=((4, 4), (6, 6), (8, 8)), **changes))
    path = folder / "vgg.safetensors"
    save_file({f"features.{key}": value for key, value in encoder.module.state_dict().items()}, path)
    return path, encoder


def test_perceptual_is_the_weighted_distance_of_features():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3, stride=2)).double()
    output, target = torch.rand(2, 2, 3, 9, 8, dtype=torch.float64)
    weights = {"0": 0.3, "2": 2.0}
    loss = FeatureLoss(TappedEncoder(module, weights).double(), torch.nn.functional.l1_loss, weights)
    first, second = module[0](output), module[0](target)
    expected = 0.3 * (first - second).abs().mean()
    expected += 2.0 * (module[2](first.relu()) - module[2](second.relu())).abs().mean()
    assert loss(output, target).item() == pytest.approx(expected.item())
    assert loss(target, target) == 0
    assert torch.autograd.gradcheck(lambda x: loss(x, target), output.requires_grad_())


def test_the_encoder_and_the_target_get_no_gradient():
    module = nn.Conv2d(3, 4, 3)
    loss = FeatureLoss(TappedEncoder(nn.Sequential(module), ["0"]), nn.functional.mse_loss, {})
    output, target = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8, requires_grad=True)
    loss(output, target).backward()
    assert output.grad.abs().sum() > 0
    assert target.grad is None
    assert module.weight.grad is None


def test_contextual_is_the_papers():
    torch.manual_seed(1)
    x, y = torch.rand(2, 2, 4, 3, 5, dtype=torch.float64)
    losses = []
    for first, second in zip(x.flatten(2).numpy(), y.flatten(2).numpy(), strict=True):
        mean = second.mean(1)
        places = range(first.shape[1])
        d = np.zeros((len(places), len(places)))
        for i in places:
            for j in places:
                a, b = first[:, i] - mean, second[:, j] - mean
                d[i, j] = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        relative = d / (d.min(1, keepdims=True) + 1e-5)
        w = np.exp((1 - relative) / 0.5)
        cx = w / w.sum(1, keepdims=True)
        losses.append(-math.log(cx.max(0).mean()))
    assert contextual(x, y).item() == pytest.approx(np.mean(losses), rel=1e-9)


def test_contextual_finds_each_feature_wherever_it_lies():
    torch.manual_seed(0)
    y = torch.randn(1, 16, 6, 6, dtype=torch.float64)
    shuffled = y.flatten(2)[..., torch.randperm(36)].view_as(y)
    assert contextual(y, y).item() == pytest.approx(0, abs=1e-9)
    assert contextual(shuffled, y).item() == pytest.approx(0, abs=1e-9)
    costs = [contextual(y + strength * torch.randn_like(y), y).item() for strength in (0.5, 0.8, 1.5)]
    assert 0 < costs[0] < costs[1] < costs[2] <= math.log(36)


def test_contextual_has_the_right_gradient_even_where_all_is_flat():
    torch.manual_seed(2)
    x, y = torch.rand(2, 1, 3, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: contextual(x, y), x.requires_grad_())
    flat = torch.ones(1, 3, 4, 4, requires_grad=True)
    contextual(flat, torch.ones(1, 3, 4, 4)).backward()
    assert flat.grad.isfinite().all()


def test_many_places_are_drawn_from():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 20, 20, requires_grad=True)
    contextual(x, torch.randn(1, 8, 20, 20), places=50).backward()
    reached = (x.grad.abs().sum(1) > 0).sum().item()
    # Places that are nobody's nearest have no say.
    assert 20 < reached <= 50


def test_one_place_alone_teaches_nothing_and_is_refused():
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    contextual(x, torch.randn(1, 8, 4, 4), places=1).backward()
    assert not x.grad.any()
    with pytest.raises(ValueError, match="places"):
        ContextualLossConfig(encoder="vgg19", layers={"conv2_2": 1.0}, places=1)
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    contextual(x, torch.randn(1, 8, 4, 4), places=2).backward()
    assert x.grad.any()


def test_attention_is_the_papers():
    torch.manual_seed(0)
    student, teacher = (torch.rand(2, n, 3, 4, dtype=torch.float64) for n in (5, 7))
    values = []
    for a, b in zip(student.numpy(), teacher.numpy(), strict=True):
        p, q = ((c**2).sum(0).ravel() for c in (a, b))
        values.append(np.linalg.norm(p / np.linalg.norm(p) - q / np.linalg.norm(q)) / 2)
    assert attention_distance(student, teacher).item() == pytest.approx(np.mean(values))
    assert torch.autograd.gradcheck(lambda x: attention_distance(x, teacher), student.requires_grad_())
    same = teacher.clone().requires_grad_()
    attention_distance(same, teacher).backward()
    assert same.grad.isfinite().all()
    with pytest.raises(ValueError, match="one size"):
        attention_distance(student, teacher[..., 1:])


# Encoders from files and names.


def test_a_vgg_is_built_from_its_weights_and_run_no_further_than_needed(tmp_path):
    path, encoder = vgg_file(tmp_path)
    opened = open_encoder(str(path), ["conv2_1", "relu1_2"])
    x = torch.rand(1, 3, 12, 11)
    found = opened(x)
    plain = (x - opened.mean) / opened.std
    assert found["relu1_2"].allclose(encoder.module[:4](plain))
    assert found["conv2_1"].allclose(encoder.module[:6](plain))
    assert torch.equal(open_encoder(str(path))(x)["conv3_2"], encoder(x)["conv3_2"])
    assert torch.equal(opened(x[:, :1])["conv2_1"], opened(x[:, :1].repeat(1, 3, 1, 1))["conv2_1"])


def test_vgg_19_has_the_published_layers():
    with torch.device("meta"):
        encoder = VGG(VGGConfig(), ["relu5_4"])
    shapes = {key: tuple(value.shape) for key, value in encoder.module.state_dict().items()}
    # torchvision's numbers of VGG-19's convolutions.
    numbers = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    assert list(shapes) == [f"{number}.{part}" for number in numbers for part in ("weight", "bias")]
    assert sum(math.prod(shape) for shape in shapes.values()) == 20_024_384
    assert encoder.names[19] == "conv4_1"
    assert encoder.names[34] == "conv5_4"


def test_batch_norm_and_shortened_vggs_are_recognised(tmp_path):
    path, encoder = vgg_file(tmp_path, batch_norm=True)
    x = torch.rand(2, 3, 12, 12)
    opened = open_encoder(str(path), ["relu3_1"]).train()
    assert opened(x)["relu3_1"].allclose(
        VGG.features(_with(encoder, ["relu3_1"]), (x - opened.mean) / opened.std)["relu3_1"]
    )
    assert opened.config.batch_norm
    state = {
        key: value
        for key, value in vgg_file(tmp_path)[1].module.state_dict().items()
        if int(key.split(".")[0]) < 7
    }
    save_file(state, tmp_path / "short.safetensors")
    assert open_encoder(str(tmp_path / "short.safetensors")).config.widths == ((4, 4), (6,))


def _with(encoder, layers):
    encoder.layers = tuple(layers)
    return encoder


def test_any_relume_model_is_an_encoder():
    loss = PerceptualLossConfig(encoder="cfsr-x2", layers={"stages.0": 1.0, "fuse": 0.5}).build(load)
    x = torch.rand(1, 3, 12, 12, requires_grad=True)
    value = loss(x, torch.rand(1, 3, 12, 12))
    value.backward()
    assert value > 0
    assert x.grad.abs().sum() > 0
    with pytest.raises(UnknownNameError, match=r"unknown layer 'stage.0'; did you mean 'stages.0'"):
        PerceptualLossConfig(encoder="cfsr-x2", layers={"stage.0": 1.0}).build(load)
    with pytest.raises(ConfigError, match="name some under layers, of shallow, stages"):
        PerceptualLossConfig(encoder="cfsr-x2").build(load)


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def forward(self, x):
        x = self.first(x)
        return {"near": x, "far": self.second(x.relu())}


@pytest.fixture(params=["scripted.pt", "exported.pt2"])
def compiled(request, tmp_path):
    torch.manual_seed(0)
    module, path = TwoOutputs().eval(), tmp_path / request.param
    if request.param == "scripted.pt":
        torch.jit.script(module).save(str(path))
    else:
        sizes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h", min=8), 3: torch.export.Dim("w", min=8)}
        torch.export.save(
            torch.export.export(module, (torch.rand(2, 3, 16, 17),), dynamic_shapes=(sizes,)), path
        )
    return path, module


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_file_is_an_encoder_by_its_outputs(compiled):
    path, module = compiled
    loss = PerceptualLossConfig(encoder=str(path), layers={"far": 3.0}).build(no_models)
    output, target = torch.rand(2, 1, 3, 12, 14)
    output.requires_grad_()
    value = loss(output, target)
    assert value.item() == pytest.approx(
        3 * (module(output)["far"] - module(target)["far"]).abs().mean().item()
    )
    value.backward()
    assert output.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.encoder.parameters())
    assert set(open_encoder(str(path))(target)) == {"near", "far"}
    with pytest.raises(UnknownNameError, match="unknown output of the encoder 'fat'; did you mean 'far'"):
        open_encoder(str(path), ["fat"])(target)
    with pytest.raises(ConfigError, match=rf"{path.name} cannot take pictures of shape \(1, 2, 12, 14\)"):
        open_encoder(str(path))(target[:, :2])


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize("name", ["wrong.pt2", "wrong.pth", "wrong.safetensors", "wrong.pt"])
@pytest.mark.parametrize("content", [b"not a file of weights", b"PK\x03\x04 cut short"])
def test_a_wrong_file_is_one_line(tmp_path, capfd, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        open_encoder(str(path), load=load)
    assert name in one_line(error)
    assert capfd.readouterr().err == ""


def test_other_weights_broken_weights_and_missing_files_are_told(tmp_path):
    save_file({"conv.weight": torch.rand(3, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no architecture that relume knows"):
        open_encoder(str(tmp_path / "other.safetensors"), load=load)
    with pytest.raises(ConfigError, match=r"other.safetensors is no encoder's file"):
        open_encoder(str(tmp_path / "other.safetensors"))
    _, encoder = vgg_file(tmp_path, batch_norm=True)
    state = encoder.module.state_dict()
    del state["4.running_var"]
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match="looks like a VGG but parts of it are missing") as error:
        open_encoder(str(tmp_path / "broken.safetensors"))
    one_line(error)
    with pytest.raises(CheckpointError, match=r"there is no file .*nowhere.pt2"):
        open_encoder(str(tmp_path / "nowhere.pt2"))
    with pytest.raises(CheckpointError, match=r"there is no file .*nowhere.pth"):
        open_encoder(str(tmp_path / "nowhere.pth"), load=load)
    with pytest.raises(UnknownNameError, match="did you mean 'cfsr-x2'"):
        open_encoder("cfsr-x22", load=load)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run!')",))


@pytest.mark.filterwarnings("ignore")
def test_an_exported_file_that_could_run_code_is_refused(tmp_path):
    import pickle
    import zipfile

    torch.export.save(
        torch.export.export(nn.Conv2d(3, 4, 3), (torch.rand(1, 3, 8, 8),)), tmp_path / "good.pt2"
    )
    assert open_encoder(str(tmp_path / "good.pt2"))(torch.rand(1, 3, 8, 8))["output"].shape == (1, 4, 6, 6)
    for swapped in ("sample_inputs/model.pt", "constants/custom_obj_0", "weights/weight_0"):
        with (
            zipfile.ZipFile(tmp_path / "good.pt2") as good,
            zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil,
        ):
            names = good.namelist()
            root = names[0].split("/")[0]
            for name in {*names, f"{root}/data/{swapped}"}:
                content = pickle.dumps(Evil()) if name.endswith(swapped) else good.read(name)
                if swapped.startswith("weights") and name.endswith("model_weights_config.json"):
                    content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
                    assert b"true" in content
                evil.writestr(name, content)
        with pytest.raises(CheckpointError, match="could run code") as error:
            open_encoder(str(tmp_path / "evil.pt2"))
        one_line(error)


def test_what_an_encoder_cannot_take_is_told(tmp_path):
    path, _ = vgg_file(tmp_path)
    with pytest.raises(ConfigError, match="takes pictures of 3 channels, these have 4"):
        open_encoder(str(path))(torch.rand(1, 4, 16, 16))
    with pytest.raises(ConfigError, match="too small for layer 'conv3_2'"):
        open_encoder(str(path))(torch.rand(1, 3, 3, 9))
    with pytest.raises(UnknownNameError, match="did you mean 'conv3_2'"):
        open_encoder(str(path), ["conv3_3"])
    with pytest.raises(ConfigError, match="gives no features"):
        TappedEncoder(nn.Sequential(nn.Flatten()), ["0"])(torch.rand(1, 3, 4, 4))


def test_pictures_are_prepared_as_set(tmp_path):
    path, _ = vgg_file(tmp_path)
    x = torch.rand(1, 3, 8, 8)
    found = {
        how: open_encoder(str(path), normalise=how)(x)["conv3_2"] for how in ("auto", "imagenet", "none")
    }
    assert torch.equal(found["auto"], found["imagenet"])
    assert not torch.equal(found["auto"], found["none"])


def test_contextual_takes_any_encoder_too(tmp_path):
    path, _ = vgg_file(tmp_path)
    loss = ContextualLossConfig(encoder=str(path), layers={"conv2_2": 1.0, "conv3_2": 0.5}, places=30).build(
        no_models
    )
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    loss(x, torch.rand(2, 3, 16, 16)).backward()
    assert x.grad.abs().sum() > 0
    assert x.grad.isfinite().all()
