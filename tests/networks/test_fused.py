"""The folded network against the plain one, on a CPU in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from i2sb_rt import models
from i2sb_rt.networks import UNet
from i2sb_rt.networks.fused import FusedUNet, TimedNorm
from i2sb_rt.networks.loading import load_network

ADM = {
    "image_size": 64, "in_channels": 3, "out_channels": 3, "model_channels": 32, "num_res_blocks": 2,
    "channel_mult": [1, 1, 2, 2, 4, 4], "attention_resolutions": [8, 16, 32], "num_head_channels": 16,
}  # fmt: skip
CONFIGS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "adm256_narrow": (ADM, (1, 64, 96)),
    "conditional": (ADM | {"in_channels": 6, "channel_mult": [1, 2], "num_res_blocks": 1}, (2, 64, 32)),
    "patched": (
        ADM | {"channel_mult": [1, 1, 2], "patch": 2, "attention": False, "resblock_updown": False}, (2, 80, 72)
    ),
    "without_scale_shift": (ADM | {"channel_mult": [1, 2], "use_scale_shift_norm": False}, (2, 16, 8)),
    "one_level": (ADM | {"channel_mult": [1], "num_res_blocks": 1, "attention_resolutions": [1]}, (3, 7, 5)),
}  # fmt: skip


def randomised(config: dict[str, Any]) -> UNet:
    """A network whose every layer counts: those that start at zero are filled too."""
    torch.manual_seed(0)
    network = UNet(**config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def assert_same(network: UNet, batch: int, height: int, width: int) -> None:
    times = torch.tensor([1000.0, 37.0, 0.1])
    fused = FusedUNet(network)
    fused.set_times(times)
    x = torch.randn((batch, network.in_channels, height, width), generator=torch.Generator().manual_seed(1))
    seen = F.pixel_unshuffle(x, network.patch).permute(0, 2, 3, 1).contiguous()
    for row, time in enumerate(times):
        fused.step.fill_(row)
        found = F.pixel_shuffle(fused(seen).permute(0, 3, 1, 2), network.patch)
        with torch.inference_mode():
            wanted = network(x, time.expand(batch))
        error = ((found - wanted).abs().max() / wanted.abs().max()).item()
        assert error < 1e-5, f"row {row}: {error:.1e} of the largest output"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_folded_network_is_the_plain_one(name: str) -> None:
    config, shape = CONFIGS[name]
    assert_same(randomised(config), *shape)


@pytest.mark.parametrize("name", models.names())
def test_shipped_models_fold(name: str) -> None:
    network = load_network(models.find(name))
    assert isinstance(network.multiple, int)
    assert_same(network, 1, 5 * network.multiple, 9 * network.multiple)


def test_tables_are_filled_in_place_while_they_suffice() -> None:
    fused = FusedUNet(randomised(ADM | {"channel_mult": [1, 2]}))
    fused.set_times(torch.linspace(0, 1000, 5))
    place, capacity = fused.timed[0].gamma.data_ptr(), fused.capacity
    fused.set_times(torch.linspace(0, 1000, capacity))
    assert fused.timed[0].gamma.data_ptr() == place
    assert fused.capacity == capacity
    fused.set_times(torch.linspace(0, 1000, capacity + 1))
    assert fused.capacity > capacity


def test_tables_for_which_there_was_no_room_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = randomised(ADM | {"channel_mult": [1, 2]})
    fused, sound = FusedUNet(network), FusedUNet(network)
    reserve, times = TimedNorm.reserve, torch.tensor([500.0])

    def full(norm: TimedNorm, rows: int) -> None:
        if norm is fused.timed[2]:
            raise torch.OutOfMemoryError("no room")
        reserve(norm, rows)

    with monkeypatch.context() as patched:
        patched.setattr(TimedNorm, "reserve", full)
        with pytest.raises(torch.OutOfMemoryError):
            fused.set_times(times)
    for _ in range(2):
        fused.set_times(times)
    sound.set_times(times)
    x = torch.randn((1, 16, 16, fused.in_width))
    assert torch.equal(fused(x), sound(x))


def test_no_call_changes_a_layout() -> None:
    """Convolutions of NHWC leave NHWC, so that what the folded network calls contiguous is so already."""
    copies = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.copy_):
                copies.append(func)
            return func(*args, **(kwargs or {}))

    fused = FusedUNet(randomised(ADM | {"channel_mult": [1, 2]}))
    fused.set_times(torch.tensor([500.0]))
    x = torch.randn((2, 16, 16, fused.in_width))
    with torch.no_grad(), Watching():
        fused(x)
        assert not copies
        x.permute(0, 3, 1, 2).contiguous()
    assert copies
