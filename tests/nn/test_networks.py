"""Networks: an ensemble equals its members computed one by one; moving averages move."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from offline_vi.nn.networks import Critic, DeterministicPolicy, EnsembleMLP, TanhNormalPolicy, join, mlp
from offline_vi.nn.optim import Adam, adam, cosine_, polyak_, recorded_steps, steps_taken
from offline_vi.types import Spec


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
    critic = Critic(Spec((3,), 2), (8,), ensemble=4)
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


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.99)])
def test_a_recorded_step_of_adam_is_the_fused_one_whatever_each_counter(betas: tuple[float, float]) -> None:
    torch.manual_seed(0)
    fused = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 5), (7,))]
    recorded = [torch.nn.Parameter(parameter.detach().clone()) for parameter in fused]
    optimizers = [Adam(parameters, lr=1e-2, betas=betas) for parameters in (fused, recorded)]
    for step in range(6):
        for ours, theirs in zip(recorded, fused, strict=True):
            theirs.grad = torch.randn_like(theirs)
            ours.grad = theirs.grad.clone()
        if step < 3:  # so that the two counters differ
            fused[1].grad = recorded[1].grad = None
        optimizers[0].step()
        with recorded_steps(optimizers):
            optimizers[1].step()
    for ours, theirs in zip(recorded, fused, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_adam_has_the_bits_and_the_state_of_torch_s_fused_one() -> None:
    torch.manual_seed(0)
    ours, theirs = [], []
    for shape in ((3, 5), (1, 7), (4,), (2,)):
        ours.append(torch.nn.Parameter(torch.randn(shape)))
        theirs.append(torch.nn.Parameter(ours[-1].detach().clone()))
    own, torchs = adam(ours, lr=1e-2, eps=1e-7), torch.optim.Adam(theirs, lr=1e-2, eps=1e-7, fused=True)
    for step in range(6):
        if step == 3:  # as where a run of torch's goes on with ours
            own.load_state_dict({**own.state_dict(), "state": copy.deepcopy(torchs.state_dict()["state"])})
        for one, other in zip(ours[:-1], theirs[:-1], strict=True):  # the last one never has a gradient
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        own.step()
        torchs.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    found, expected = own.state_dict()["state"], torchs.state_dict()["state"]
    assert found.keys() == expected.keys() == {0, 1, 2}
    for number, state in expected.items():
        assert found[number].keys() == state.keys()
        assert all(torch.equal(found[number][key], value) for key, value in state.items())


def test_polyak_moves_the_target_by_tau() -> None:
    online = nn.Linear(2, 2)
    target = copy.deepcopy(online)
    with torch.no_grad():
        online.weight.fill_(1.0)
        target.weight.fill_(0.0)
    polyak_(target, online, 0.005)
    polyak_(target, online, 0.005)
    torch.testing.assert_close(target.weight, torch.full((2, 2), 1 - 0.995**2))


def test_layer_norm_is_that_of_each_member_after_its_relu() -> None:
    ensemble = EnsembleMLP([4, 8, 6, 1], 2, layer_norm=True).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        for parameter in ensemble.norms.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        expected = []
        for member in range(2):
            h = x
            for layer, norm in zip(ensemble.layers, [*ensemble.norms, None], strict=True):
                h = h @ layer.weight[member] + layer.bias[member]  # type: ignore[index]
                if norm is not None:
                    plain = nn.LayerNorm(h.shape[-1], eps=1e-6).double()
                    plain.weight.copy_(norm.weight[member, 0])
                    plain.bias.copy_(norm.bias[member, 0])
                    h = plain(h.relu())
            expected.append(h)
        torch.testing.assert_close(ensemble(x), torch.stack(expected))
        torch.testing.assert_close(ensemble(x, slice(1, 2))[0], expected[1])


def test_dropout_is_between_the_layers_and_off_in_evaluation() -> None:
    net = mlp([4, 16, 16, 2], dropout=0.5)
    assert [type(layer).__name__ for layer in net] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    x = torch.randn(3, 4)
    assert not torch.equal(net(x), net(x))
    net.eval()
    torch.testing.assert_close(net(x), net(x))
    assert [type(layer).__name__ for layer in mlp([4, 16, 2])] == ["Linear", "ReLU", "Linear"]


def test_policies_stay_in_the_box_and_the_scale_in_its_range() -> None:
    obs = 100.0 * torch.randn(50, 3)
    action = DeterministicPolicy(Spec((3,), 2), (8,))(obs)
    assert action.shape == (50, 2) and action.abs().max() <= 1.0
    policy = TanhNormalPolicy(Spec((3,), 2), (8,))(obs)
    assert policy.rsample((7,)).shape == (7, 50, 2)
    assert policy.base.log_scale.min() == -5.0 and policy.base.log_scale.max() == 2.0


def test_steps_are_counted_by_the_optimiser_and_the_cosine_falls_with_them() -> None:
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    rates = []
    for step in range(6):
        assert steps_taken(optimizer) == step
        cosine_(optimizer, 0.2, 4)
        rates.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.ones(())
        optimizer.step()
    torch.testing.assert_close(torch.tensor(rates), torch.tensor([0.2, 0.1 + 0.1 * 0.5**0.5, 0.1, 0.0292893, 0.0, 0.0]))
