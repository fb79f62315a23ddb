"""TD3+BC and IQL in plain, jitted JAX: what `compare_speed` times as the compiled peer.

Written as people write it: pure functions of a state, the whole update in one jitted call of several updates, rows and
noise drawn inside it, Adam by hand. The equations and settings are those of `algorithms/td3_bc.py` and
`algorithms/iql.py`, whose steps it takes (`tests/scripts/test_plain_jax.py`). It imports nothing of the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

HIDDEN, BATCH = (256, 256), 256
LR, DISCOUNT, TAU = 3e-4, 0.99, 0.005
UPDATES = 8  # a call

Layers = list[tuple[Array, Array]]  # (W (in, out), b (out,)) each


class Batch(NamedTuple):
    obs: Array  # (B, O)
    action: Array  # (B, A)
    reward: Array  # (B,)
    next_obs: Array  # (B, O)
    terminated: Array  # (B,)


class Trained(NamedTuple):
    """Parameters and Adam's state."""

    parameters: Any
    mean: Any
    square: Any
    count: Array


class TD3BC(NamedTuple):
    actor: Trained
    actor_target: Any
    critic: Trained
    critic_target: Any


class IQL(NamedTuple):
    actor: Trained  # (layers, log_scale (A,))
    value: Trained
    critic: Trained
    critic_target: Any


# ------------------------------------------------------------------ networks and their optimizer


def layers(key: Array, *sizes: int) -> Layers:
    """U(-1/sqrt(in), 1/sqrt(in)), as torch begins."""
    found = []
    for fan_in, fan_out in pairwise(sizes):
        key, one, two = jax.random.split(key, 3)
        bound = 1.0 / math.sqrt(fan_in)
        weight = jax.random.uniform(one, (fan_in, fan_out), minval=-bound, maxval=bound)
        found.append((weight, jax.random.uniform(two, (fan_out,), minval=-bound, maxval=bound)))
    return found


def net(parameters: Layers, x: Array) -> Array:
    for weight, bias in parameters[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ parameters[-1][0] + parameters[-1][1]


def q_values(members: list[Layers], obs: Array, action: Array) -> Array:
    """(E, B)."""
    pair = jnp.concatenate([obs, action], -1)
    return jnp.stack([net(member, pair)[:, 0] for member in members])


def trained(parameters: Any) -> Trained:
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    return Trained(parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.zeros(()))


def gradient_step(own: Trained, loss: Callable[[Any], Array], lr: float | Array = LR) -> tuple[Trained, Array]:
    """Adam (Kingma and Ba 2015) with its usual constants."""
    value, gradient = jax.value_and_grad(loss)(own.parameters)
    count = own.count + 1.0
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, own.mean, gradient)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, own.square, gradient)
    rate, correction = lr / (1.0 - 0.9**count), jnp.sqrt(1.0 - 0.999**count)
    parameters = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) / correction + 1e-8), own.parameters, mean, square
    )
    return Trained(parameters, mean, square, count), value


def polyak(target: Any, online: Any) -> Any:
    return jax.tree.map(lambda old, new: old + TAU * (new - old), target, online)


# ------------------------------------------------------------------ TD3+BC


def start_td3_bc(key: Array, obs: int, action: int) -> TD3BC:
    one, two, three = jax.random.split(key, 3)
    actor = layers(one, obs, *HIDDEN, action)
    critic = [layers(part, obs + action, *HIDDEN, 1) for part in (two, three)]
    return TD3BC(trained(actor), copied(actor), trained(critic), copied(critic))


def update_td3_bc(state: TD3BC, batch: Batch, noise: Array, number: int) -> tuple[TD3BC, Array]:
    """Update ``number`` (from 1); the actor moves at every second one. ``noise`` (B, A) is standard normal."""
    smooth = jnp.clip(0.2 * noise, -0.5, 0.5)
    next_action = jnp.clip(jnp.tanh(net(state.actor_target, batch.next_obs)) + smooth, -1.0, 1.0)
    value = q_values(state.critic_target, batch.next_obs, next_action).min(0)
    target = batch.reward + DISCOUNT * (1.0 - batch.terminated) * value

    def critic_loss(members: list[Layers]) -> Array:
        return ((q_values(members, batch.obs, batch.action) - target) ** 2).mean(-1).sum()

    critic, loss = gradient_step(state.critic, critic_loss)
    if number % 2:
        return state._replace(critic=critic), loss

    def actor_loss(actor: Layers) -> Array:
        action = jnp.tanh(net(actor, batch.obs))
        q = q_values(critic.parameters[:1], batch.obs, action)[0]
        scale = jax.lax.stop_gradient(jnp.abs(q).mean())
        return (-2.5 * q / scale + ((action - batch.action) ** 2).mean(-1)).mean()

    actor, _ = gradient_step(state.actor, actor_loss)
    actor_target = polyak(state.actor_target, actor.parameters)
    return TD3BC(actor, actor_target, critic, polyak(state.critic_target, critic.parameters)), loss


# ------------------------------------------------------------------ IQL


def start_iql(key: Array, obs: int, action: int) -> IQL:
    one, two, three, four = jax.random.split(key, 4)
    actor = (layers(one, obs, *HIDDEN, action), jnp.zeros(action))
    critic = [layers(part, obs + action, *HIDDEN, 1) for part in (two, three)]
    return IQL(trained(actor), trained(layers(four, obs, *HIDDEN, 1)), trained(critic), copied(critic))


def log_prob(actor: tuple[Layers, Array], obs: Array, action: Array) -> Array:
    """Of N(tanh(net(s)), exp(log_scale)^2), (B,)."""
    log_scale = jnp.clip(actor[1], -5.0, 2.0)
    error = (action - jnp.tanh(net(actor[0], obs))) * jnp.exp(-log_scale)
    return (-0.5 * error**2 - log_scale - 0.5 * math.log(2.0 * math.pi)).sum(-1)


def update_iql(state: IQL, batch: Batch, noise: Array, number: int) -> tuple[IQL, Array]:
    """IQL draws no noise, and every update is the same."""
    q = q_values(state.critic_target, batch.obs, batch.action).min(0)

    def value_loss(value: Layers) -> Array:
        error = q - net(value, batch.obs)[:, 0]
        return (jnp.where(error < 0.0, 0.3, 0.7) * error**2).mean()

    value, _ = gradient_step(state.value, value_loss)
    weight = jnp.minimum(jnp.exp(3.0 * (q - net(value.parameters, batch.obs)[:, 0])), 100.0)
    rate = 0.5 * LR * (1.0 + jnp.cos(math.pi * state.actor.count / 1e6))
    actor, _ = gradient_step(state.actor, lambda own: -(weight * log_prob(own, batch.obs, batch.action)).mean(), rate)
    target = batch.reward + DISCOUNT * (1.0 - batch.terminated) * net(value.parameters, batch.next_obs)[:, 0]

    def critic_loss(members: list[Layers]) -> Array:
        return ((q_values(members, batch.obs, batch.action) - target) ** 2).mean(-1).sum()

    critic, loss = gradient_step(state.critic, critic_loss)
    return IQL(actor, value, critic, polyak(state.critic_target, critic.parameters)), loss


# ------------------------------------------------------------------ several updates a call

ALGORITHMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "td3-bc": (start_td3_bc, update_td3_bc),
    "iql": (start_iql, update_iql),
}


def copied(parameters: Any) -> Any:
    return jax.tree.map(jnp.copy, parameters)


def call(name: str, columns: dict[str, Any], seed: int = 0) -> Callable[[], None]:
    """A function that takes `UPDATES` updates of an algorithm on columns in D4RL's layout, and waits for them."""
    start, update = ALGORITHMS[name]
    rows = Batch(
        jnp.asarray(columns["observations"]),
        jnp.asarray(columns["actions"]),
        jnp.asarray(columns["rewards"]),
        jnp.asarray(np.roll(columns["observations"], -1, 0)),
        jnp.asarray(columns["terminals"].astype(np.float32)),
    )

    def updates(state: Any, key: Array, rows: Batch) -> tuple[Any, Array, Array]:
        loss = jnp.zeros(())
        for number in range(1, UPDATES + 1):
            key, first, second = jax.random.split(key, 3)
            index = jax.random.randint(first, (BATCH,), 0, len(rows.obs) - 1)
            batch = Batch(*(column[index] for column in rows))
            state, loss = update(state, batch, jax.random.normal(second, batch.action.shape), number)
        return state, key, loss

    jitted = jax.jit(updates, donate_argnums=0)
    state, key = start(jax.random.key(seed), rows.obs.shape[1], rows.action.shape[1]), jax.random.key(seed + 1)

    def one_call() -> None:
        nonlocal state, key
        state, key, loss = jitted(state, key, rows)
        loss.block_until_ready()

    return one_call
