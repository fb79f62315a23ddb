"""Every target and loss of the family against its NumPy restatement, and the order of the updates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracle_family as oracle
import pytest
import torch
from agents import built, small_choice, small_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from offline_vi import registry
from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.algorithms.bear import BEAR, BEARConfig
from offline_vi.algorithms.cql import CQL, CQLConfig
from offline_vi.algorithms.ddpg import DDPG, DDPGConfig
from offline_vi.algorithms.emaq import EMaQ, EMaQConfig
from offline_vi.algorithms.idql import IDQL, IDQLConfig
from offline_vi.algorithms.iql import IQL, IQLConfig
from offline_vi.algorithms.onestep import OneStep, OneStepConfig
from offline_vi.algorithms.plas import PLAS, PLASConfig
from offline_vi.algorithms.rebrac import ReBRAC, ReBRACConfig
from offline_vi.algorithms.sac import KLSAC, SAC, KLSACConfig, SACConfig
from offline_vi.algorithms.soft_q import SoftQ, SoftQConfig
from offline_vi.algorithms.spot import SPOT, SPOTConfig
from offline_vi.algorithms.td3 import TD3, TD3Config
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.behavior import DecoderMeans, DensityModel, LatentModel, Proposals
from offline_vi.errors import CapabilityError
from offline_vi.inference.optimality import uniform
from offline_vi.nn.networks import EnsembleLinear
from offline_vi.types import Batch, Metrics, Spec

SPEC = Spec((4,), 2)
HIDDEN: dict[str, Any] = {"hidden": (9, 7)}
SIZE = 6


class Draws(TorchDispatchMode):
    """Record every random draw, whatever function made it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws: list[oracle.Array] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.name().split("::")[1].startswith(("rand", "normal")):
            self.draws.append(out.detach().numpy().copy())
        return out


class Known(LatentModel, DensityModel):
    """decode = tanh(z W + s V); log_prob = -|a - tanh(s V)|^2; samples on a fixed grid of latents."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.latent_dim = SPEC, 3
        rng = np.random.default_rng(1)
        self.w, self.v = rng.normal(size=(3, 2)), 0.5 * rng.normal(size=(4, 2))
        self.grid = rng.normal(size=(10, 1, 3))

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        raise NotImplementedError

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return self.decode(obs, torch.from_numpy(self.grid[:num_samples]).expand(-1, obs.shape[0], -1))

    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(z @ torch.from_numpy(self.w) + obs @ torch.from_numpy(self.v))

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        return -(action - torch.tanh(obs @ torch.from_numpy(self.v))).square().sum(-1)

    def sample_numpy(self, state: oracle.Array, count: int) -> oracle.Array:
        return np.tanh(self.grid[:count] @ self.w + state @ self.v)


def transitions() -> tuple[Batch, oracle.Transition]:
    obs, next_obs = torch.randn(2, SIZE, 4, dtype=torch.float64)
    action = torch.rand(SIZE, 2, dtype=torch.float64) * 1.8 - 0.9
    reward, done = torch.randn(SIZE, dtype=torch.float64), torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]).double()
    batch = Batch(obs, action, reward, next_obs, done, torch.arange(SIZE))
    return batch, oracle.Transition(*(column.numpy() for column in (obs, action, reward, next_obs, done)))


def scattered(algorithm: Any) -> Any:
    """In float64, with targets that differ from their networks."""
    algorithm = algorithm.double()
    with torch.no_grad():
        for parameter in algorithm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return algorithm


def layers(module: nn.Module) -> oracle.Layers:
    return [
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
    ]


def critics(module: nn.Module) -> oracle.Critics:
    ensemble = [layer for layer in module.modules() if isinstance(layer, EnsembleLinear)]
    members = range(ensemble[0].weight.shape[0])
    return oracle.Critics(
        [
            [(layer.weight[e].detach().numpy().copy(), layer.bias[e, 0].detach().numpy().copy()) for layer in ensemble]
            for e in members
        ]
    )


def check(loss: Tensor, expected: float) -> None:
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def same(target: Tensor, expected: oracle.Array) -> None:
    np.testing.assert_allclose(target.numpy(), expected, rtol=1e-9)


# ------------------------------------------------------------------ targets and losses


def test_emaq() -> None:
    model, (batch, rows) = Known(), transitions()
    algorithm = scattered(EMaQ(SPEC, model, EMaQConfig(num_candidates=7, **HIDDEN)))
    action = model.sample_numpy(rows.next_state, 7)
    value = critics(algorithm.critic_target).least(oracle.over(rows.next_state, 7), action).max(0)
    target = oracle.bootstrap(rows, value)
    same(algorithm.target(batch), target)
    check(algorithm.critic_loss(batch)[0], critics(algorithm.critic).squared_error(rows.state, rows.action, target))
    action = model.sample_numpy(rows.state, 10)
    best = critics(algorithm.critic).least(oracle.over(rows.state, 10), action).argmax(0)
    same(algorithm.act(batch.obs), action[best, np.arange(SIZE)])


@pytest.mark.parametrize("phi", [0.0, 0.1])
def test_plas(phi: float) -> None:
    model, (batch, rows) = Known(), transitions()
    algorithm = scattered(PLAS(SPEC, model, PLASConfig(phi=phi, **HIDDEN)))

    def act(actor: Any, state: oracle.Array) -> oracle.Array:
        action = np.tanh(2.0 * oracle.policy(layers(actor.policy), state) @ model.w + state @ model.v)
        if phi == 0.0:
            return action
        moved = np.tanh(oracle.relu_net(layers(actor.perturbation), np.concatenate([state, action], 1)))
        return np.clip(action + phi * moved, -1.0, 1.0)

    value = critics(algorithm.critic_target).mixed(rows.next_state, act(algorithm.actor_target, rows.next_state), 0.75)
    target = oracle.bootstrap(rows, value)
    same(algorithm.target(batch), target)
    critic, action = critics(algorithm.critic), act(algorithm.actor, rows.state)
    check(algorithm.critic_loss(batch)[0], critic.squared_error(rows.state, rows.action, target))
    check(algorithm.actor_loss(batch)[0], -critic.all(rows.state, action)[0].mean())
    same(algorithm.act(batch.obs), action)


def test_ddpg() -> None:
    batch, rows = transitions()
    algorithm = scattered(DDPG(SPEC, DDPGConfig(**HIDDEN)))
    (value,) = critics(algorithm.critic_target).all(
        rows.next_state, oracle.policy(layers(algorithm.actor_target), rows.next_state)
    )
    critic, target = critics(algorithm.critic), oracle.bootstrap(rows, value)
    check(algorithm.critic_loss(batch)[0], critic.squared_error(rows.state, rows.action, target))
    check(algorithm.actor_loss(batch)[0], oracle.td3_actor(rows, layers(algorithm.actor), critic))


@pytest.mark.parametrize("name", ["td3", "td3-bc", "spot", "rebrac"])
def test_the_td3_branch(name: str) -> None:
    model, (batch, rows) = Known(), transitions()
    made: dict[str, Any] = {
        "td3": lambda: TD3(SPEC, TD3Config(**HIDDEN)),
        "td3-bc": lambda: TD3BC(SPEC, TD3BCConfig(**HIDDEN)),
        "spot": lambda: SPOT(SPEC, model, SPOTConfig(lmbda=0.3, **HIDDEN)),
        "rebrac": lambda: ReBRAC(
            SPEC, model, ReBRACConfig(beta_actor=0.2, beta_critic=0.7, layer_norm=False, **HIDDEN)
        ),
    }
    algorithm = scattered(made[name]()).eval()
    with Draws() as noise:
        found = algorithm.critic_loss(batch)[0]
    assert len(noise.draws) == 1
    actor, actor_target = layers(algorithm.actor), layers(algorithm.actor_target)
    critic, critic_target = critics(algorithm.critic), critics(algorithm.critic_target)
    target = oracle.td3_target(rows, actor_target, critic_target, noise.draws[0])
    if name == "rebrac":
        sample = model.sample_numpy(rows.next_state, 1)[0]
        target = oracle.rebrac_target(rows, actor_target, critic_target, noise.draws[0], sample, 0.7)
    check(found, critic.squared_error(rows.state, rows.action, target))
    action = oracle.policy(actor, rows.state)
    log_prob = -((action - np.tanh(rows.state @ model.v)) ** 2).sum(-1)
    expected = {
        "td3": lambda: oracle.td3_actor(rows, actor, critic),
        "td3-bc": lambda: oracle.td3_bc_actor(rows, actor, critic),
        "spot": lambda: oracle.spot_actor(rows, actor, critic, log_prob, 0.3 / (4 * 2)),
        "rebrac": lambda: oracle.rebrac_actor(rows, actor, critic, 0.2),
    }
    check(algorithm.actor_loss(batch)[0], expected[name]())
    same(algorithm.act(batch.obs), action)


def test_rebracs_critics_normalise_their_layers() -> None:
    batch, rows = transitions()
    algorithm: Any = ReBRAC(SPEC, Known(), ReBRACConfig(**HIDDEN)).double()
    expected = oracle.Critics(critics(algorithm.critic).members, normalise=True).all(rows.state, rows.action)
    same(algorithm.critic(batch.obs, batch.action).detach(), np.stack(expected))


def test_iql() -> None:
    batch, rows = transitions()
    algorithm = scattered(IQL(SPEC, IQLConfig(**HIDDEN)))
    expected = oracle.iql_losses(
        rows,
        layers(algorithm.actor),
        algorithm.actor.log_scale.detach().numpy(),
        layers(algorithm.value),
        critics(algorithm.critic),
        critics(algorithm.critic_target),
    )
    q = algorithm.q(batch)
    check(algorithm.value_loss(batch, q)[0], expected["value"])
    check(algorithm.actor_loss(batch, q)[0], expected["actor"])
    check(algorithm.critic_loss(batch)[0], expected["critic"])
    same(algorithm.act(batch.obs), oracle.policy(layers(algorithm.actor), rows.state))


def test_bc_counts_errors_in_units_of_their_spread() -> None:
    """beta-NLL by hand: its value, and the gradient of the mean, for which the spread is a constant."""
    batch, rows = transitions()
    algorithm = scattered(BC(SPEC, BCConfig(beta=0.3, hidden=HIDDEN["hidden"])))
    action = oracle.policy(layers(algorithm.actor), rows.state)
    shift = np.arctanh(2.0 * 4.0 / 7.0 - 1.0)  # log sigma in (-5, 2), -1 where the network says 0, with slope 1 there
    raw = oracle.relu_net(layers(algorithm.spread), rows.state) / (3.5 / np.cosh(shift) ** 2)
    sigma = np.exp(-5.0 + 3.5 * (np.tanh(shift + raw) + 1.0))
    error = action - rows.action
    loss = algorithm.actor_loss(batch)[0]
    check(loss, (sigma**0.6 * (error**2 / (2.0 * sigma**2) + np.log(sigma))).mean())
    (found,) = torch.autograd.grad(loss, list(algorithm.actor.parameters())[-1])
    same(found, (sigma**-1.4 * error * (1.0 - action**2)).sum(0) / error.size)
    same(algorithm.act(batch.obs), action)


def test_idql() -> None:
    model, (batch, rows) = Known(), transitions()
    algorithm = scattered(IDQL(SPEC, model, IDQLConfig(num_candidates=5, **HIDDEN)))
    critic, target = critics(algorithm.critic), critics(algorithm.critic_target)
    value = layers(algorithm.value)
    u = np.min(target.all(rows.state, rows.action), 0) - oracle.relu_net(value, rows.state)[..., 0]
    check(algorithm.value_loss(batch)[0], (np.where(u < 0, 0.3, 0.7) * u**2).mean())
    after = oracle.bootstrap(rows, oracle.relu_net(value, rows.next_state)[..., 0])
    check(algorithm.critic_loss(batch)[0], critic.squared_error(rows.state, rows.action, after))
    sample = model.sample_numpy(rows.state, 5)
    lowest = np.stack([np.min(target.all(rows.state, each), 0) for each in sample])
    same(algorithm.act(batch.obs), sample[lowest.argmax(0), np.arange(len(rows.state))])


@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_onestep(tau: float) -> None:
    model, (batch, rows) = Known(), transitions()
    algorithm = scattered(OneStep(SPEC, model, OneStepConfig(expectile=tau, ensemble=2, num_candidates=5, **HIDDEN)))
    critic, target = critics(algorithm.critic), critics(algorithm.critic_target)
    bootstrapped = oracle.bootstrap(rows, target.least(rows.next_state, model.sample_numpy(rows.next_state, 1)[0]))
    check(algorithm.critic_loss(batch)[0], oracle.expectile_regression(rows, critic, bootstrapped, tau))

    ended = batch._replace(terminated=torch.ones_like(batch.terminated))  # as rows with returns are
    check(algorithm.critic_loss(ended)[0], oracle.expectile_regression(rows, critic, rows.reward, tau))
    sample = model.sample_numpy(rows.state, 5)
    least = critic.least(oracle.over(rows.state, 5), sample)
    same(algorithm.act(batch.obs), sample[least.argmax(0), np.arange(SIZE)])


def test_an_update_of_onestep_is_a_step_of_adam_down_the_slope_of_its_loss() -> None:
    """The slope by differences of the oracle's loss; at Adam's first step mean and root mean square are both it."""
    model, (batch, rows) = Known(), transitions()
    batch = batch._replace(terminated=torch.ones_like(batch.terminated))
    algorithm = scattered(OneStep(SPEC, model, OneStepConfig(expectile=0.7, lr=0.1, tau=0.2, **HIDDEN)))
    before, slow = critics(algorithm.critic), critics(algorithm.critic_target)

    def loss() -> float:
        return oracle.expectile_regression(rows, before, rows.reward, 0.7)

    algorithm.update(batch)
    arrays = [array for layer in before.members[0] for array in layer]
    slopes = [oracle.slope(loss, array) for array in arrays]
    after = [array for layer in critics(algorithm.critic).members[0] for array in layer]
    follows = [array for layer in critics(algorithm.critic_target).members[0] for array in layer]
    followed = [array for layer in slow.members[0] for array in layer]
    for array, slope, now, target, now_target in zip(arrays, slopes, after, followed, follows, strict=True):
        np.testing.assert_allclose(now, array - 0.1 * slope / (np.abs(slope) + 1e-8), atol=1e-5)
        np.testing.assert_allclose(now_target, 0.8 * target + 0.2 * now, rtol=1e-12)


@pytest.mark.parametrize("warm", [True, False])
def test_bear(warm: bool) -> None:
    model, (batch, rows) = Known(), transitions()
    algorithm = scattered(BEAR(SPEC, model, BEARConfig(warmup=int(warm), num_match=5, **HIDDEN)))
    with Draws() as noise:
        found = algorithm.critic_loss(batch)[0]
    actor, critic = layers(algorithm.actor), critics(algorithm.critic)
    target = oracle.bear_target(rows, layers(algorithm.actor_target), critics(algorithm.critic_target), noise.draws[0])
    check(found, critic.squared_error(rows.state, rows.action, target))
    with Draws() as noise:
        found, metrics = algorithm.actor_loss(batch)
    multiplier = algorithm.log_multiplier.exp().item()
    sample = model.sample_numpy(rows.state, 5)
    expected, mmd = oracle.bear_actor(rows, actor, critic, noise.draws[0], sample, multiplier, warm)
    check(found, expected)
    check(metrics["actor/mmd"], mmd)
    check(algorithm.multiplier_loss(metrics["actor/mmd"])[0], -multiplier * (mmd - 0.05))


@pytest.mark.parametrize(("mmd", "rises"), [(0.2, True), (0.01, False)])
def test_bears_multiplier_rises_while_the_constraint_is_broken_and_stays_in_its_range(mmd: float, rises: bool) -> None:
    algorithm: Any = BEAR(SPEC, Known(), BEARConfig(lr=0.5, log_multiplier_range=(-1.0, 0.4), **HIDDEN)).double()
    before = algorithm.log_multiplier.item()
    loss, _ = algorithm.multiplier_loss(torch.tensor(mmd))
    (grad,) = torch.autograd.grad(loss, algorithm.log_multiplier)
    assert (grad.item() < 0.0) == rises
    for _ in range(5):
        algorithm.update(transitions()[0])
    assert before != algorithm.log_multiplier.item()
    assert -1.0 <= algorithm.log_multiplier.item() <= 0.4


@pytest.mark.parametrize("warm", [True, False])
def test_cql(warm: bool) -> None:
    batch, rows = transitions()
    algorithm = scattered(CQL(SPEC, CQLConfig(warmup=int(warm), num_samples=3, **HIDDEN)))
    actor, critic, target = layers(algorithm.actor), critics(algorithm.critic), critics(algorithm.critic_target)
    with Draws() as noise:
        found = algorithm.critic_loss(batch)[0]
    draws = dict(zip(("target", "uniform", "following", "current"), noise.draws, strict=True))
    draws["target"] = draws["target"][0]  # one action
    check(found, oracle.cql_critic(rows, actor, critic, target, draws))
    with Draws() as noise:
        found = algorithm.actor_loss(batch)[0]
    temperature = algorithm.log_temperature.exp().item()
    check(found, oracle.cql_actor(rows, actor, critic, noise.draws[0], temperature, warm))
    with Draws() as noise:
        found = algorithm.temperature_loss(batch)[0]
    pi = oracle.stochastic(actor, rows.state)
    log_prob = pi.log_prob(pi.mean + pi.scale * noise.draws[0])
    check(found, -(algorithm.log_temperature.item() * (log_prob - 2.0)).mean())


@pytest.mark.parametrize("name", ["sac", "sac uniform", "kl-sac"])
def test_the_soft_actor_critics(name: str) -> None:
    model, (batch, rows) = Known(), transitions()
    made: dict[str, Any] = {
        "sac": lambda: SAC(SPEC, SACConfig(temperature=0.3, target_entropy=-1.5, **HIDDEN)),
        "sac uniform": lambda: SAC(SPEC, SACConfig(temperature=0.3, target_entropy=-1.5, **HIDDEN), uniform),
        "kl-sac": lambda: KLSAC(SPEC, model, KLSACConfig(temperature=0.3, target_entropy=-1.5, **HIDDEN)),
    }
    algorithm = scattered(made[name]())
    start = -1.0 if name == "kl-sac" else 0.0

    def log_prior(state: oracle.Array, pi: oracle.Normal, noise: oracle.Array) -> Any:
        action = np.tanh(pi.mean + pi.scale * noise)
        behavior = -((action - np.tanh(state @ model.v)) ** 2).sum(-1)
        return {"sac": 0.0, "sac uniform": -2.0 * np.log(2.0), "kl-sac": behavior}[name]

    temperature = algorithm.log_alpha.exp().item()
    actor, critic = layers(algorithm.actor), critics(algorithm.critic)
    with Draws() as noise:
        found = algorithm.critic_loss(batch)[0]
    (drawn,) = noise.draws
    pi = oracle.smooth(actor, rows.next_state, start)
    prior = log_prior(rows.next_state, pi, drawn[0])
    target = oracle.sac_target(rows, pi, critics(algorithm.critic_target), drawn[0], temperature, prior)
    check(found, critic.squared_error(rows.state, rows.action, target))
    with Draws() as noise:
        found, metrics = algorithm.actor_loss(batch)
    (drawn,) = noise.draws
    pi = oracle.smooth(actor, rows.state, start)
    prior = log_prior(rows.state, pi, drawn[0])
    expected, entropy = oracle.sac_actor(rows, pi, critic, drawn[0], temperature, prior)
    check(found, expected)
    check(metrics["actor/entropy"], entropy)
    loss, _ = algorithm.alpha_loss(metrics["actor/entropy"])
    check(loss, algorithm.log_alpha.item() * (entropy + 1.5))  # both aim at a relative entropy of -1.5
    same(algorithm.act(batch.obs), np.tanh(pi.mean))


def test_soft_q() -> None:
    model, (batch, rows) = Known(), transitions()
    config = SoftQConfig(temperature=0.3, num_candidates=7, num_acting_candidates=10, **HIDDEN)
    algorithm = scattered(SoftQ(SPEC, model, config, log_weight=uniform))
    action = model.sample_numpy(rows.next_state, 7)
    target = oracle.soft_q_target(rows, critics(algorithm.critic_target), action, -2.0 * np.log(2.0), 0.3)
    same(algorithm.target(batch), target)
    check(algorithm.critic_loss(batch)[0], critics(algorithm.critic).squared_error(rows.state, rows.action, target))
    action = model.sample_numpy(rows.state, 10)
    q = critics(algorithm.critic).least(oracle.over(rows.state, 10), action)
    same(replace(algorithm.policy(), temperature=0.0).act(batch.obs), action[q.argmax(0), np.arange(SIZE)])
    weight = np.exp((q - q.max(0)) / 0.3)
    chosen = torch.stack([algorithm.act(batch.obs) for _ in range(4_000)])  # (T, B, A)
    share = torch.isclose(chosen.unsqueeze(1), torch.from_numpy(action)).all(-1).double().mean(0).numpy()
    np.testing.assert_allclose(share, weight / weight.sum(0), atol=4.0 * 0.5 / 4_000**0.5)


# ------------------------------------------------------------------ which network steps when


@pytest.mark.parametrize(("name", "first"), [("td3", 1), ("td3-bc", 1), ("spot", 1), ("rebrac", 0)])
def test_the_actor_and_the_targets_step_at_every_second_update_across_a_restart(name: str, first: int) -> None:
    choice = small_choice(name, SPEC, jointly=False, batch_size=SIZE, **HIDDEN)
    algorithm: Any = built(choice, SPEC).double()
    moved = []
    for step in range(5):
        before = algorithm.snapshot()
        algorithm.update(transitions()[0])
        after = algorithm.snapshot()
        changed = {key.split(".")[0] for key in before if "opt" not in key and not torch.equal(before[key], after[key])}
        moved.append(changed)
        if step == 2:
            algorithm = built(choice, SPEC).double()
            algorithm.restore(after)
    alone, all_of_them = {"critic"}, {"critic", "critic_target", "actor", "actor_target"}
    expected = [alone if step % 2 != first else all_of_them for step in range(5)]
    if name == "rebrac":
        expected[0] = all_of_them - {"actor_target"}  # it follows before the actor's step: at the first there is no way
    assert moved == expected


def test_iqls_policy_learns_ever_more_slowly_across_a_restart() -> None:
    config = IQLConfig(decay_steps=4, **HIDDEN)
    algorithm: Any = IQL(SPEC, config).double()
    rates = []
    for step in range(6):
        algorithm.update(transitions()[0])
        rates.append(algorithm.actor_opt.param_groups[0]["lr"] / config.lr)
        if step == 1:
            snapshot, algorithm = algorithm.snapshot(), IQL(SPEC, config).double()
            algorithm.restore(snapshot)
    np.testing.assert_allclose(rates, [1.0, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5, 0.0, 0.0], atol=1e-12)


def test_spots_penalty_reaches_the_policy() -> None:
    """With Q constant the policy climbs the density: its gradient runs through log_prob to the action."""
    algorithm: Any = SPOT(SPEC, Known(), SPOTConfig(lr=0.01, lmbda=1.0, dropout=0.0, published_scale=False, **HIDDEN))
    algorithm = algorithm.double()
    with torch.no_grad():
        for parameter in algorithm.critic.parameters():
            parameter.fill_(0.1)
    batch, _ = transitions()
    first = algorithm.actor_loss(batch)[1]["actor/behavior_log_prob"].item()
    for _ in range(60):
        loss, metrics = algorithm.actor_loss(batch)
        algorithm.actor_opt.zero_grad()
        loss.backward(inputs=list(algorithm.actor.parameters()))
        algorithm.actor_opt.step()
    assert metrics["actor/behavior_log_prob"].item() > 0.3 * first


# ------------------------------------------------------------------ what plugs in


class OnlySamples(Proposals):
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return torch.zeros(num_samples, obs.shape[0], 2)


@pytest.mark.parametrize(
    ("name", "needed"), [("plas", "LatentModel"), ("spot", "DensityModel"), ("kl-sac", "DensityModel")]
)
def test_a_model_without_the_capability_is_refused_by_name(name: str, needed: str) -> None:
    cls: Any = registry.algorithm(name).load()
    cls(SPEC, Known())
    with pytest.raises(CapabilityError, match=rf"{cls.__name__}.*OnlySamples") as refusal:
        cls(SPEC, OnlySamples())
    assert needed in str(refusal.value.hint)


@pytest.mark.parametrize("name", ["bcq", "bear", "emaq", "idql", "onestep", "rebrac", "soft-q"])
def test_samples_are_enough(name: str) -> None:
    cls: Any = registry.algorithm(name).load()
    cls(SPEC, OnlySamples())
    cls(SPEC, DecoderMeans(Known()))


def test_an_algorithm_without_a_behavior_model_refuses_one() -> None:
    chosen = replace(small_choice("td3", SPEC), behavior="cvae")
    with pytest.raises(CapabilityError, match="td3"):
        built(chosen, SPEC, small_model("cvae", SPEC))


@pytest.mark.parametrize(
    ("name", "model", "decoded"),
    [("bcq", "cvae", True), ("bear", "cvae", True), ("bcq", "mixture", False), ("emaq", "cvae", False)],
)
def test_the_table_says_who_is_given_decoder_means(name: str, model: str, decoded: bool) -> None:
    algorithm: Any = built(small_choice(name, SPEC, jointly=False, behavior=model, noise_clip=0.25), SPEC)
    assert isinstance(algorithm.proposals, DecoderMeans) == decoded
    if decoded:
        assert algorithm.proposals.noise_clip == 0.25
