"""The network of points: its shape, its start, and that points and times do not touch each other."""

import pytest
import torch

from i2sb_rt.networks import MLP


def drawn(**sizes: int) -> MLP:
    torch.manual_seed(0)
    network = MLP(**sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return network.eval()


def test_it_begins_at_zero_and_learns_from_there() -> None:
    network = MLP(dim=3)
    x, t = torch.randn(5, 3, 1, 1), torch.rand(5) * 1000
    out = network(x, t)
    assert out.shape == x.shape
    assert not out.any()
    ((out - x) ** 2).sum().backward()
    assert network.out.weight.grad is not None
    assert network.out.weight.grad.abs().max() > 0


def test_each_point_has_its_own_time() -> None:
    network = drawn(dim=2, width=16, depth=2)
    x, t = torch.randn(6, 2, 1, 1), torch.tensor([0.0, 10, 500, 500, 999, 1000])
    whole = network(x, t)
    for k in range(6):
        torch.testing.assert_close(network(x[k : k + 1], t[k : k + 1]), whole[k : k + 1])
    shared = network(x, torch.full((6,), 500.0))
    torch.testing.assert_close(network(x, torch.tensor([500.0])), shared)
    assert (shared[0] - whole[0]).abs().max() > 1e-3
    torch.testing.assert_close(shared[2:4], whole[2:4])


def test_the_time_alone_can_make_any_affine_map_of_each_coordinate() -> None:
    network = MLP(dim=2, width=4, depth=1)
    with torch.no_grad():
        network.affine.bias.copy_(torch.tensor([2.0, -1.0, 0.5, 3.0]))
    x = torch.randn(4, 2, 1, 1)
    expected = x * torch.tensor([2.0, -1.0])[:, None, None] + torch.tensor([0.5, 3.0])[:, None, None]
    torch.testing.assert_close(network(x, torch.rand(4)), expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MLP(dim=0)
    with pytest.raises(ValueError, match=r"x is \[B, 2, 1, 1\], not \[3, 2, 2, 2\]"):
        MLP(dim=2)(torch.zeros(3, 2, 2, 2), torch.zeros(3))
