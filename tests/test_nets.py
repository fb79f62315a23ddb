"""Networks: an ensemble equals its members computed one by one; moving averages move."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from offline_vi.nets import Critic, EnsembleMLP, join, mlp, polyak_


@pytest.mark.parametrize("lead", [(), (5,), (3, 5), (2, 3, 5)])
def test_an_ensemble_equals_its_members_one_by_one(lead: tuple[int, ...]) -> None:
    ensemble = EnsembleMLP([4, 8, 6, 2], 3).double()
    x = torch.randn(*lead, 4, dtype=torch.float64)
    out = ensemble(x)
    assert out.shape == (3, *lead, 2)
    for member in range(3):
        plain = mlp([4, 8, 6, 2]).double()
        linears = [layer for layer in plain if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for linear, layer in zip(linears, ensemble.layers, strict=True):
                linear.weight.copy_(layer.weight[member].T)  # type: ignore[index]
                linear.bias.copy_(layer.bias[member, 0])  # type: ignore[index]
        torch.testing.assert_close(out[member], plain(x))


def test_critic_shapes_and_first_member() -> None:
    critic = Critic(3, 2, (8,), ensemble=4)
    obs, action = torch.randn(5, 3), torch.randn(7, 5, 2)
    assert critic(obs, action).shape == (4, 7, 5)
    torch.testing.assert_close(critic.q1(obs, action), critic(obs, action)[0])
    assert critic.q1(obs[:1], action[0, :1]).shape == (1,)


def test_members_start_different_and_within_the_bound_of_a_linear_layer() -> None:
    layer = EnsembleMLP([16, 400], 2).layers[0]
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    assert not torch.equal(weight[0], weight[1])
    assert weight.abs().max() <= 0.25
    assert weight.abs().max() > 0.24


def test_join_broadcasts_the_context_over_samples() -> None:
    joined = join(torch.arange(6.0).reshape(2, 3), torch.zeros(4, 2, 1))
    assert joined.shape == (4, 2, 4)
    torch.testing.assert_close(joined[3, 1], torch.tensor([3.0, 4.0, 5.0, 0.0]))


def test_polyak_moves_the_target_by_tau() -> None:
    online = nn.Linear(2, 2)
    target = copy.deepcopy(online)
    with torch.no_grad():
        online.weight.fill_(1.0)
        target.weight.fill_(0.0)
    polyak_(target, online, 0.005)
    polyak_(target, online, 0.005)
    torch.testing.assert_close(target.weight, torch.full((2, 2), 1 - 0.995**2))
