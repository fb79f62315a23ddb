"""The planner against the linear quadratic regulator, and its parts."""

from __future__ import annotations

import math

import numpy as np
import oracles_sequence as oracle
import pytest
import torch
from torch import Tensor

from offline_vi.distributions.reduction import log_mean_exp
from offline_vi.world_model.dynamics import Imagined
from offline_vi.world_model.planning import GaussianProposal, PlanConfig, discounted_return, elites, exponential, search

DT, COST, STEPS, SCALE = 0.1, 0.1, 20, 3.0


def next_state(x: Tensor, a: Tensor) -> Tensor:
    """(..., 2), (..., 1) with u = 3 a."""
    place, speed = x.unbind(-1)
    return torch.stack([place + DT * speed, speed + DT * SCALE * a[..., 0]], -1)


def stage(x: Tensor, a: Tensor) -> Tensor:
    return x.square().sum(-1) + COST * (SCALE * a[..., 0]).square()


def closed_loop_cost(config: PlanConfig, seed: int) -> float:
    """Plan, act, shift, plan again: the cost over 20 steps."""
    torch.manual_seed(seed)
    x, total = torch.tensor([[1.0, 0.0]]), 0.0
    start = torch.zeros(STEPS, 1, 1)
    for t in range(STEPS):

        def returns(noise: Tensor, x: Tensor = x) -> Tensor:
            state, cost = x.expand(noise.shape[1], 1, 2), torch.zeros(noise.shape[1], 1)
            for a in noise.clamp(-1.0, 1.0):
                cost = cost + stage(state, a)
                state = next_state(state, a)
            return -(cost + state.square().sum(-1))

        found = search(returns, start[: STEPS - t], config)
        a = found.noise[0].clamp(-1.0, 1.0)
        total += float(stage(x, a))
        x, start = next_state(x, a), found.shifted()
    return total + float(x.square().sum())


def test_the_oracle_is_the_specification_s() -> None:
    cost, first = oracle.riccati_cost(np.array([1.0, 0.0]), STEPS)
    assert cost == pytest.approx(13.230565, abs=1e-6)
    assert first == pytest.approx(-2.41, abs=5e-3)


@pytest.mark.parametrize("temperature, spread", [(0.0, 1.0), (1.0, 0.5)])
def test_the_planner_on_the_true_model_is_nearly_optimal(temperature: float, spread: float) -> None:
    """CEM and MPPI: at most 1.05 times the optimum, the worst of five seeds."""
    optimum, _ = oracle.riccati_cost(np.array([1.0, 0.0]), STEPS)
    config = PlanConfig(STEPS, 200, 4, 20, temperature, init_scale=spread)
    worst = max(closed_loop_cost(config, seed) for seed in range(5))
    assert optimum - 1e-3 <= worst <= 1.05 * optimum


def test_weights_are_the_gradient_of_the_one_reduction() -> None:
    returns = torch.randn(7, 3, dtype=torch.float64)
    for temperature in (0.1, 1.0, 10.0):
        weights = exponential(temperature)(returns)
        torch.testing.assert_close(weights, torch.softmax(returns / temperature, 0))
        step = 1e-6 * torch.randn_like(returns)
        change = log_mean_exp(returns + step, 0, temperature) - log_mean_exp(returns - step, 0, temperature)
        torch.testing.assert_close(change, 2.0 * (weights * step).sum(0), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(elites(1)(returns), exponential(0.0)(returns))  # T -> 0: the best alone
    torch.testing.assert_close(elites(7)(returns), exponential(math.inf)(returns))
    assert (elites(3)(returns).sum(0) == 1.0).all()


def imagined(reward: list[float], terminal: list[float], gain: list[float]) -> Imagined:
    column = [torch.tensor(values).reshape(-1, 1, 1) for values in (reward, terminal, gain)]
    states = torch.zeros(len(reward), 1, 1, 2)
    return Imagined(states, states[..., :1], *column)


def test_the_return_of_a_plan() -> None:
    """By hand: what comes after an end counts nothing, a nat costs its price, the horizon is bootstrapped."""
    path = imagined([1.0, 2.0, 4.0], [0.0, 0.5, 0.0], [0.0, 1.0, 2.0])
    assert discounted_return(path).item() == pytest.approx(1.0 + 2.0 + 0.5 * 4.0)
    assert discounted_return(path, discount=0.5).item() == pytest.approx(1.0 + 1.0 + 0.25 * 0.5 * 4.0)
    assert discounted_return(path, penalty=0.1).item() == pytest.approx(1.0 + 1.9 + 0.5 * 3.8)

    def value(state: Tensor) -> Tensor:
        return torch.stack([torch.full(state.shape[:-1], 10.0), torch.full(state.shape[:-1], 8.0)])

    assert discounted_return(path, discount=0.5, value=value).item() == pytest.approx(2.5 + 0.125 * 0.5 * 8.0)


def test_a_search_never_forgets_its_best_plan() -> None:
    """With a floor of the spread so high that every iteration is a blind guess, the value still never falls."""
    torch.manual_seed(0)
    best: list[float] = []

    def returns(noise: Tensor) -> Tensor:
        found = -noise.square().sum((0, -1))
        best.append(found.max().item())
        return found

    plan = search(returns, torch.full((4, 1, 1), 3.0), PlanConfig(4, 20, 5, 5, init_scale=2.0, min_scale=2.0))
    assert plan.value.item() == pytest.approx(max(best))
    assert float(-plan.noise.square().sum()) == pytest.approx(plan.value.item(), rel=1e-5)


def test_rows_are_searched_on_their_own() -> None:
    """Each row has its own goal, and finds it."""
    torch.manual_seed(0)
    goal = torch.tensor([-0.6, 0.1, 0.7])
    plan = search(
        lambda noise: -(noise[..., 0] - goal).square().sum(0), torch.zeros(3, 3, 1), PlanConfig(3, 100, 8, 10)
    )
    torch.testing.assert_close(plan.noise[..., 0], goal.expand(3, 3), atol=0.05, rtol=0.0)


def test_a_gaussian_proposal_stays_in_the_box() -> None:
    action = GaussianProposal(2).action(torch.zeros(3, 1, 4), 5.0 * torch.randn(3, 1, 2))
    assert action.abs().max() <= 1.0
