"""Targets and losses of the actor-critic family restated in NumPy float64, from the papers and their reference codes.

Sources: sfujim/TD3 TD3.py and OurDDPG.py (6a9f7610), sfujim/TD3_BC TD3_BC.py (76cdd148), Wenxuan-Zhou/PLAS algos.py
(da348520), thuml/SPOT SPOT.py (26a7de7b), ikostrikov/implicit_q_learning critic.py and actor.py (e3d4e613),
aviralkumar2907/BEAR algos.py (a57faff7), tinkoff-ai/ReBRAC rebrac.py (00d1112b), aviralkumar2907/CQL cql.py (0787a29f),
davidbrandfonbrener/onestep-rl q_learner.py (99994433).
Never imports the library or torch. Losses that the references average over dimensions are averaged here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array]]  # (W (in, out), b (out,)) each


class Transition(NamedTuple):
    state: Array
    action: Array
    reward: Array
    next_state: Array
    done: Array


def relu_net(layers: Layers, x: Array, normalise: bool = False) -> Array:
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0.0)
        if normalise:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    weight, bias = layers[-1]
    return x @ weight + bias


@dataclass
class Critics:
    """Two state-action values."""

    members: list[Layers]
    normalise: bool = False

    def all(self, state: Array, action: Array) -> list[Array]:
        pair = np.concatenate([state, action], -1)
        return [relu_net(member, pair, self.normalise)[..., 0] for member in self.members]

    def least(self, state: Array, action: Array) -> Array:
        return np.asarray(np.min(self.all(state, action), axis=0))

    def mixed(self, state: Array, action: Array, lmbda: float) -> Array:
        values = self.all(state, action)
        return np.asarray(lmbda * np.min(values, axis=0) + (1.0 - lmbda) * np.max(values, axis=0))

    def squared_error(self, state: Array, action: Array, target: Array) -> float:
        return float(sum(((value - target) ** 2).mean() for value in self.all(state, action)))


def bootstrap(batch: Transition, value: Array, discount: float = 0.99) -> Array:
    return np.asarray(batch.reward + (1.0 - batch.done) * discount * value)


def expectile_regression(batch: Transition, critic: Critics, target: Array, tau: float) -> float:
    """Summed over the critics; tau = 1/2 is half of the squared error."""
    errors = [target - value for value in critic.all(batch.state, batch.action)]
    return float(sum((np.where(error < 0.0, 1.0 - tau, tau) * error**2).mean() for error in errors))


def slope(loss: Callable[[], float], array: Array, step: float = 1e-6) -> Array:
    """Central differences of a loss over the entries of an array that it reads."""
    found = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + step
        above = loss()
        array[place] = kept - step
        found[place] = (above - loss()) / (2.0 * step)
        array[place] = kept
    return found


# ------------------------------------------------------------------ deterministic policies


def policy(actor: Layers, state: Array) -> Array:
    return np.tanh(relu_net(actor, state))


def noisy(action: Array, noise: Array) -> Array:
    return np.clip(action + np.clip(0.2 * noise, -0.5, 0.5), -1.0, 1.0)


def td3_target(batch: Transition, actor_target: Layers, critic_target: Critics, noise: Array) -> Array:
    action = noisy(policy(actor_target, batch.next_state), noise)
    return bootstrap(batch, critic_target.least(batch.next_state, action))


def td3_actor(batch: Transition, actor: Layers, critic: Critics) -> float:
    return -float(critic.all(batch.state, policy(actor, batch.state))[0].mean())


def td3_bc_actor(batch: Transition, actor: Layers, critic: Critics, alpha: float = 2.5) -> float:
    action = policy(actor, batch.state)
    q = critic.all(batch.state, action)[0]
    return float(-alpha / np.abs(q).mean() * q.mean() + ((action - batch.action) ** 2).mean())


def spot_actor(batch: Transition, actor: Layers, critic: Critics, log_prob: Array, weight: float) -> float:
    q = critic.all(batch.state, policy(actor, batch.state))[0]
    return float(-q.mean() / np.abs(q).mean() + weight * (-log_prob).mean())


def rebrac_target(
    batch: Transition, actor_target: Layers, critic_target: Critics, noise: Array, behavior: Array, beta: float
) -> Array:
    action = noisy(policy(actor_target, batch.next_state), noise)
    penalty = ((action - behavior) ** 2).sum(-1)
    return bootstrap(batch, critic_target.least(batch.next_state, action) - beta * penalty)


def rebrac_actor(batch: Transition, actor: Layers, critic: Critics, beta: float) -> float:
    action = policy(actor, batch.state)
    q = critic.least(batch.state, action)
    return float((beta * ((action - batch.action) ** 2).sum(-1) - q / np.abs(q).mean()).mean())


# ------------------------------------------------------------------ IQL


def iql_losses(
    batch: Transition, actor: Layers, log_scale: Array, value: Layers, critic: Critics, critic_target: Critics
) -> dict[str, float]:
    q = critic_target.least(batch.state, batch.action)
    advantage = q - relu_net(value, batch.state)[:, 0]
    value_loss = np.where(advantage > 0, 0.7, 0.3) * advantage**2
    weight = np.minimum(np.exp(3.0 * advantage), 100.0)
    mean, scale = policy(actor, batch.state), np.exp(np.clip(log_scale, -5.0, 2.0))
    log_prob = (-0.5 * ((batch.action - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2.0 * np.pi)).sum(-1)
    target = bootstrap(batch, relu_net(value, batch.next_state)[:, 0])
    return {
        "value": float(value_loss.mean()),
        "actor": float(-(weight * log_prob).mean()),
        "critic": critic.squared_error(batch.state, batch.action, target),
    }


# ------------------------------------------------------------------ tanh-Normal policies


class Normal(NamedTuple):
    """Before the tanh."""

    mean: Array
    scale: Array

    def log_prob(self, u: Array) -> Array:
        normal = -0.5 * ((u - self.mean) / self.scale) ** 2 - np.log(self.scale) - 0.5 * np.log(2.0 * np.pi)
        return np.asarray((normal - np.log(1.0 - np.tanh(u) ** 2)).sum(-1))


def stochastic(actor: Layers, state: Array) -> Normal:
    mean, log_scale = np.split(relu_net(actor, state), 2, axis=-1)
    return Normal(mean, np.exp(np.clip(log_scale, -5.0, 2.0)))


def over(state: Array, count: int) -> Array:
    return np.broadcast_to(state, (count, *state.shape))


def bear_target(batch: Transition, actor_target: Layers, critic_target: Critics, noise: Array) -> Array:
    """noise (N, B, A)."""
    pi = stochastic(actor_target, batch.next_state)
    action = np.tanh(pi.mean + pi.scale * noise)
    value = critic_target.mixed(over(batch.next_state, len(noise)), action, 0.75)
    return bootstrap(batch, value.max(0))


def laplacian_mmd(x: Array, y: Array, sigma: float) -> float:
    """sqrt of the biased estimate of MMD^2 of two samples (N, A), pair by pair."""

    def mean(a: Array, b: Array) -> float:
        return float(np.mean([[np.exp(-np.abs(p - q).sum() / (2.0 * sigma)) for q in b] for p in a]))

    return float(np.sqrt(mean(x, x) + mean(y, y) - 2.0 * mean(x, y) + 1e-6))


def bear_actor(
    batch: Transition, actor: Layers, critic: Critics, noise: Array, sample: Array, multiplier: float, warm: bool
) -> tuple[float, float]:
    """noise, sample (N, B, A): the loss and the mean MMD."""
    pi = stochastic(actor, batch.state)
    u = pi.mean + pi.scale * np.clip(noise, -0.5, 0.5)
    raw = np.arctanh(sample)
    mmd = np.array([laplacian_mmd(raw[:, row], u[:, row], 20.0) for row in range(len(batch.state))])
    q = np.min([value.mean(0) for value in critic.all(over(batch.state, len(noise)), np.tanh(u))], axis=0)
    return float(((0.0 if warm else -1.0) * q + multiplier * mmd).mean()), float(mmd.mean())


def cql_critic(
    batch: Transition,
    actor: Layers,
    critic: Critics,
    critic_target: Critics,
    noise: dict[str, Array],
    alpha: float = 5.0,
) -> float:
    """noise: "target" (B, A) and "following", "current" (N, B, A), standard normal; "uniform" (N, B, A) in [0, 1)."""
    here, there = stochastic(actor, batch.state), stochastic(actor, batch.next_state)
    bootstrapped = np.tanh(there.mean + there.scale * noise["target"])
    target = bootstrap(batch, critic_target.least(batch.next_state, bootstrapped))
    current, following = here.mean + here.scale * noise["current"], there.mean + there.scale * noise["following"]
    state = over(batch.state, len(current))
    total = critic.squared_error(batch.state, batch.action, target)
    proposals = [
        (2.0 * noise["uniform"] - 1.0, np.full(current.shape[:2], batch.action.shape[1] * np.log(0.5))),
        (np.tanh(following), there.log_prob(following)),
        (np.tanh(current), here.log_prob(current)),
    ]
    for member in (0, 1):
        weighted = [critic.all(state, action)[member] - log_density for action, log_density in proposals]
        everywhere = np.log(np.mean(np.exp(np.concatenate(weighted)), axis=0))
        total += alpha * float((everywhere - critic.all(batch.state, batch.action)[member]).mean())
    return total


def cql_actor(batch: Transition, actor: Layers, critic: Critics, noise: Array, temperature: float, warm: bool) -> float:
    pi = stochastic(actor, batch.state)
    u = pi.mean + pi.scale * noise
    objective = pi.log_prob(np.arctanh(batch.action)) if warm else critic.least(batch.state, np.tanh(u))
    return float((temperature * pi.log_prob(u) - objective).mean())


# ------------------------------------------------------------------ soft optimality


def smooth(actor: Layers, state: Array, start: float) -> Normal:
    """A policy whose log-scale is bounded smoothly to (-5, 2): a tanh moved so that a raw output of 0 gives ``start``,
    with slope 1 there."""
    mean, raw = np.split(relu_net(actor, state), 2, axis=-1)
    shift = np.arctanh((start + 1.5) / 3.5)
    return Normal(mean, np.exp(-1.5 + 3.5 * np.tanh(shift + raw * np.cosh(shift) ** 2 / 3.5)))


def sac_target(
    batch: Transition, pi: Normal, critic_target: Critics, noise: Array, temperature: float, log_prior: Array | float
) -> Array:
    """pi at the next states; noise (B, A); log_prior (B,) of the actions that it leads to."""
    u = pi.mean + pi.scale * noise
    value = critic_target.least(batch.next_state, np.tanh(u)) - temperature * (pi.log_prob(u) - log_prior)
    return bootstrap(batch, value)


def sac_actor(
    batch: Transition, pi: Normal, critic: Critics, noise: Array, temperature: float, log_prior: Array | float
) -> tuple[float, float]:
    """pi at the states: the loss, and the entropy relative to the prior."""
    u = pi.mean + pi.scale * noise
    entropy = log_prior - pi.log_prob(u)
    loss = -temperature * entropy - critic.least(batch.state, np.tanh(u))
    return float(loss.mean()), float(entropy.mean())


def soft_q_target(
    batch: Transition, critic_target: Critics, action: Array, log_weight: float, temperature: float
) -> Array:
    """action (K, B, A)."""
    q = critic_target.least(over(batch.next_state, len(action)), action) / temperature + log_weight
    return bootstrap(batch, temperature * np.log(np.exp(q - q.max(0)).mean(0)) + temperature * q.max(0))
