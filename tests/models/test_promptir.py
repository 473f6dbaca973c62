"""What is PromptIR's own: its prompts, the authors' unused layers, and refused settings."""

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn import functional as F

from relume.models.restoration.promptir import Prompt, PromptIR, PromptIRConfig, from_official


@torch.no_grad()
def test_a_prompt_is_the_weighed_sum_enlarged():
    torch.manual_seed(0)
    prompt = Prompt(6, count=3, width=2, size=4)
    x = torch.randn(2, 6, 7, 5)
    for index in range(2):
        weights = prompt.weigh(x[index].mean((1, 2))).softmax(0)
        mixed = sum(weight * part for weight, part in zip(weights, prompt.prompts, strict=True))
        enlarged = F.interpolate(mixed[None], (7, 5), mode="bilinear", align_corners=False)
        assert torch.allclose(prompt(x)[index], prompt.smooth(enlarged)[0], atol=1e-6)


def test_layers_that_nothing_uses_are_left_out(shared):
    case = load_file(shared / "golden" / "dcpt" / "promptir.safetensors")
    state = {key.removeprefix("state/"): value for key, value in case.items() if key.startswith("state/")}
    more = {"chnl_reduce1.weight": torch.zeros(8, 8, 1, 1), "reduce_noise_channel_1.weight": torch.zeros(1)}
    found, plain = from_official({**state, **more}), from_official(state)
    assert found.config == plain.config
    assert found.state.keys() == plain.state.keys() == PromptIR(found.config).state_dict().keys()
    assert found.config.ratio == 1.5


def test_others_are_not_taken_for_it():
    assert from_official({"prompt1.prompt_param": torch.zeros(1)}) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 47}, "even"),
        ({"attention_heads": (1, 2, 3, 8)}, "cannot share"),
        ({"depths": (1, 1)}, "depths"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        PromptIRConfig(**settings)
