"""Initial weights at the published presets against what the papers' code draws: ranges, biases, orthogonality."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from agents import built
from torch import Tensor

from offline_vi.nn.initialization import SCHEMES
from offline_vi.nn.networks import EnsembleLinear
from offline_vi.study.agents import AgentChoice
from offline_vi.study.presets import choice
from offline_vi.study.train import default_options
from offline_vi.types import Spec

SPEC = Spec((11,), 3)


class Law(NamedTuple):
    """Of a layer: weights U(-bound, bound) or orthogonal, biases U(-bias, bias) or constant."""

    bound: float | None  # None: sqrt(2) times an orthogonal matrix
    bias: float
    constant: bool


def torch_law(fan_in: int) -> Law:
    return Law(fan_in**-0.5, fan_in**-0.5, False)


def laws(name: str, sizes: list[tuple[int, int]], last: float) -> list[Law]:
    """For each layer (in, out) of a network whose papers' code is the algorithm's."""
    if name == "iql":
        return [Law(None, 0.0, True) for _ in sizes]
    if name == "idql":
        return [Law((6.0 / sum(size)) ** 0.5, 0.0, True) for size in sizes]
    if name == "cql":
        hidden = [Law(fan_out**-0.5, 0.1, True) for _, fan_out in sizes[:-1]]
    elif name == "rebrac":
        hidden = [Law(fan_in**-0.5, 0.1, True) for fan_in, _ in sizes[:-1]]
    else:
        hidden = [torch_law(fan_in) for fan_in, _ in sizes[:-1]]
    small = name in ("cql", "rebrac", "spot antmaze-umaze")
    return [*hidden, Law(last, last, False) if small else torch_law(sizes[-1][0])]


def layers(module: Any) -> list[tuple[Tensor, Tensor]]:
    """(in, out) weights and biases of the first member, layer by layer."""
    found = []
    for part in module.modules():
        weight, bias = (getattr(part, name, None) for name in ("weight", "bias"))
        if isinstance(weight, Tensor) and isinstance(bias, Tensor) and weight.shape[-2:].numel() > weight.shape[-1]:
            found.append((weight.T, bias) if weight.ndim == 2 else (weight[0], bias[0, 0]))
    return found


@pytest.mark.parametrize(
    "name",
    ["bcq", "ddpg", "sac", "plas", "td3-bc", "spot", "spot antmaze-umaze", "iql", "idql", "cql", "rebrac"],
)
def test_networks_begin_as_in_the_papers_code(name: str) -> None:
    algorithm, _, task = name.partition(" ")
    config = default_options(algorithm, {}, ["--tuned-for", task] if task else [])["algorithm"]
    chosen = choice("published", algorithm, SPEC)
    made = AgentChoice(algorithm, config, chosen.behavior, chosen.behavior_config)
    agent: Any = built(made, SPEC)
    policy = agent.value if algorithm == "idql" else agent.actor
    for module, last in ((policy, 1e-3), (agent.critic, 3e-3)):
        found = layers(module)
        sizes = [(weight.shape[0], weight.shape[1]) for weight, _ in found]
        for (weight, bias), law in zip(found, laws(name, sizes, last), strict=True):
            if law.bound is None:
                small = weight if weight.shape[0] >= weight.shape[1] else weight.T
                torch.testing.assert_close(small.T @ small, 2.0 * torch.eye(small.shape[1]), atol=1e-4, rtol=0.0)
            else:
                assert 0.9 * law.bound < weight.abs().max() <= law.bound
            if law.constant:
                assert (bias == torch.tensor(law.bias)).all()
            else:
                assert 0.3 * law.bias < bias.abs().max() <= law.bias or bias.numel() == 1


def test_every_scheme_is_used_by_a_published_preset() -> None:
    used = {default_options(name, {}, [])["algorithm"].init for name in ("iql", "idql", "cql", "rebrac", "spot")}
    used.add(default_options("spot", {}, ["--tuned-for", "antmaze-umaze"])["algorithm"].init)
    assert used == SCHEMES.keys()


@pytest.mark.parametrize("stack", [(), (2,)])
def test_members_and_seeds_are_drawn_apart(stack: tuple[int, ...]) -> None:
    agent: Any = built(choice("published", "iql", SPEC), Spec((11,), 3, stack=stack))
    for part in agent.critic.modules():
        if isinstance(part, EnsembleLinear):
            matrices = part.weight.detach().flatten(0, -3)
            assert len({float(matrix.sum()) for matrix in matrices}) == len(matrices) == 2 * len(agent_seeds(stack))


def agent_seeds(stack: tuple[int, ...]) -> range:
    return range(stack[0] if stack else 1)
