"""The compiled peer that the speed of TD3+BC and IQL is measured against takes their steps."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offline_vi.algorithms.iql import IQL, IQLConfig
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.nn.networks import EnsembleMLP
from offline_vi.types import Batch, Spec

jax = pytest.importorskip("jax")
HIDDEN, BATCH = (16, 16), 32


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """benchmarks/plain_jax.py, everything in float64."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield importlib.import_module("plain_jax")
    torch.set_default_dtype(before)


def arrays(net: Any) -> Any:
    """The layers of one network, W (in, out), or of each member of an ensemble; copies, since JAX may share memory."""
    if isinstance(net, EnsembleMLP):
        parts = [[part.detach().numpy() for part in layer.parameters()] for layer in net.layers]  # weight, bias
        return [[(w[member].copy(), b[member, 0].copy()) for w, b in parts] for member in range(net.ensemble)]
    linear = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
    return [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear]


def td3_bc(plain: Any) -> tuple[TD3BC, Any, Any, tuple[int, ...]]:
    ours = TD3BC(Spec((11,), 3), TD3BCConfig(hidden=HIDDEN))

    def state() -> Any:
        actor, critic = arrays(ours.actor.net), arrays(ours.critic.net)
        targets = arrays(ours.actor_target.net), arrays(ours.critic_target.net)
        return plain.TD3BC(plain.trained(actor), targets[0], plain.trained(critic), targets[1])

    return ours, state, plain.update_td3_bc, (1, 2, 1)  # the actor moves at every second update


def iql(plain: Any) -> tuple[IQL, Any, Any, tuple[int, ...]]:
    ours = IQL(Spec((11,), 3), IQLConfig(hidden=HIDDEN))

    def state() -> Any:
        actor = arrays(ours.actor.mean.net), ours.actor.log_scale.detach().numpy().copy()
        trained = [plain.trained(part) for part in (actor, arrays(ours.value.net), arrays(ours.critic.net))]
        return plain.IQL(*trained, arrays(ours.critic_target.net))

    return ours, state, plain.update_iql, (1, 1, 1)


@pytest.mark.parametrize("build", [td3_bc, iql])
def test_three_steps_of_the_jax_restatement_equal_ours(plain: Any, build: Any) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ours, state_of_ours, update, numbers = build(plain)
    compiled_fast = {"xla_backend_optimization_level": 0}
    state, update = state_of_ours(), jax.jit(update, static_argnums=3, compiler_options=compiled_fast)
    for number in numbers:
        obs, next_obs = rng.normal(size=(2, BATCH, 11))
        action, reward, terminated = rng.uniform(-1, 1, (BATCH, 3)), rng.normal(size=BATCH), rng.random(BATCH) < 0.2
        columns = (obs, action, reward, next_obs, terminated.astype(np.float64))
        noise = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(number)).numpy()
        torch.manual_seed(number)
        metrics = ours.update(Batch(*(torch.from_numpy(column) for column in (*columns, np.arange(BATCH)))))
        state, loss = update(state, plain.Batch(*columns), noise, number)
        assert float(loss) == pytest.approx(float(metrics["critic/loss"]), rel=1e-9)
    expected, found = (jax.tree.leaves(part) for part in (weights(state_of_ours()), weights(state)))
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(np.asarray(other), one, rtol=0, atol=1e-9)  # a step of Adam is 3e-4


def weights(state: Any) -> list[Any]:
    """Parameters and targets, without the moments."""
    return [getattr(part, "parameters", part) for part in state]
