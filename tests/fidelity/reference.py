"""Whole updates of the algorithms, restated in float64 from the code of their papers. Nothing here imports the library.

A network is the list of its tensors: of a plain one (out, in) weights and biases, layer by layer; of an ensemble the
same with a leading axis of members, weights (E, in, out) and biases (E, 1, out), then the scales and shifts of its
normalizations. Random numbers come from a `Noise` that the test fills.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = list[Tensor]


class Noise:
    """The random numbers of an update, in the order in which they are drawn."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        self.draws = list(draws)

    def take(self, *shape: int) -> Tensor:
        """The next ones, of this shape."""
        draw = self.draws.pop(0)
        assert draw.numel() == math.prod(shape), (draw.shape, shape)
        return draw.reshape(shape)


class Adam:
    """Kingma and Ba 2015, algorithm 1, as torch and optax have it: eps outside the root."""

    def __init__(self, parameters: Tensors, lr: float, eps: float = 1e-8) -> None:
        self.parameters, self.lr, self.eps, self.steps = parameters, lr, eps, 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    def step(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.parameters)
        self.steps += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                mean, square = m / (1.0 - 0.9**self.steps), v / (1.0 - 0.999**self.steps)
                p.sub_(self.lr * mean / (square.sqrt() + self.eps))


def copies(tensors: Tensors) -> Tensors:
    return [tensor.detach().clone() for tensor in tensors]


def leaves(tensors: Tensors) -> Tensors:
    return [tensor.requires_grad_() for tensor in copies(tensors)]


def follow(target: Tensors, online: Tensors, tau: float) -> None:
    with torch.no_grad():
        for t, p in zip(target, online, strict=True):
            t.copy_(tau * p + (1.0 - tau) * t)


def mlp(net: Tensors, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
    """ReLU between the layers; a mask of dropout multiplies a hidden layer."""
    for i in range(0, len(net) - 2, 2):
        x = torch.relu(x @ net[i].T + net[i + 1])
        x = x * masks[i // 2] if masks else x
    return x @ net[-2].T + net[-1]


def q(net: Tensors, s: Tensor, a: Tensor, norm: bool = False) -> tuple[Tensor, ...]:
    """Each critic's values, (..., B)."""
    x = torch.cat([s.expand(*a.shape[:-1], s.shape[-1]), a], -1)
    count = 2 * (len(net) // 4) + 2 if norm else len(net)  # of the layers' own tensors: L layers, L - 1 norms
    values = []
    for e in range(len(net[0])):
        h = x
        for i in range(0, count - 2, 2):
            h = torch.relu(h @ net[i][e] + net[i + 1][e])
            if norm:
                scale, shift = net[count + i][e], net[count + i + 1][e]
                h = F.layer_norm(h, h.shape[-1:], eps=1e-6) * scale + shift
        values.append((h @ net[count - 2][e] + net[count - 1][e]).squeeze(-1))
    return tuple(values)


def mse(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).mean()


def tanh_density(mean: Tensor, std: Tensor, u: Tensor) -> Tensor:
    """log pi(tanh u), u ~ N(mean, std^2), summed over the last dimension."""
    normal = -0.5 * ((u - mean) / std) ** 2 - std.log() - 0.5 * math.log(2.0 * math.pi)
    return (normal - 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))).sum(-1)


@dataclass
class Rows:
    """A batch: s (B, O), a (B, A), r (B,), s2 (B, O), not_done (B,), a2 (B, A) the data's next actions."""

    s: Tensor
    a: Tensor
    r: Tensor
    s2: Tensor
    not_done: Tensor
    a2: Tensor


class Reference:
    """Networks and optimizers by the names of the library's attributes."""

    nets: dict[str, Tensors]
    adams: dict[str, Adam]

    def update(self, rows: Rows, noise: Noise) -> None:
        raise NotImplementedError


# ------------------------------------------------------------------ the CVAE of BCQ, PLAS, SPOT and BEAR


class VAE:
    """sfujim/BCQ, continuous_BCQ/BCQ.py: decoder and encoder, the encoder's two heads side by side."""

    def __init__(self, tensors: Tensors, lr: float) -> None:
        self.tensors = leaves(tensors)
        self.decoder, self.encoder = self.tensors[:6], self.tensors[6:]
        self.latent = self.encoder[-1].shape[0] // 2
        self.adam = Adam(self.tensors, lr)

    def encode(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = mlp(self.encoder, torch.cat([s, a], -1)).chunk(2, -1)
        return mean, log_std.clamp(-4.0, 15.0).exp()

    def decode(self, s: Tensor, z: Tensor, raw: bool = False) -> Tensor:
        u = mlp(self.decoder, torch.cat([s.expand(*z.shape[:-1], s.shape[-1]), z], -1))
        return u if raw else torch.tanh(u)

    def loss(self, s: Tensor, a: Tensor, noise: Noise) -> Tensor:
        """mse + 1/2 KL, means over all entries."""
        mean, std = self.encode(s, a)
        recon = self.decode(s, mean + std * noise.take(*mean.shape))
        kl = -0.5 * (1.0 + torch.log(std**2) - mean**2 - std**2).mean()
        return mse(recon, a) + 0.5 * kl

    def fit(self, s: Tensor, a: Tensor, noise: Noise) -> None:
        self.adam.step(self.loss(s, a, noise))


class BCQ(Reference):
    """sfujim/BCQ, continuous_BCQ/BCQ.py, `train`."""

    def __init__(self, nets: dict[str, Tensors]) -> None:
        self.vae = VAE(nets["behavior"], lr=1e-3)
        actor, critic = leaves(nets["algorithm.actor"]), leaves(nets["algorithm.critic"])
        self.actor, self.critic = actor, critic
        self.actor_target, self.critic_target = copies(actor), copies(critic)
        self.nets = {
            "behavior": self.vae.tensors,
            "algorithm.actor": actor,
            "algorithm.critic": critic,
            "algorithm.actor_target": self.actor_target,
            "algorithm.critic_target": self.critic_target,
        }
        self.adams = {
            "behavior_opt": self.vae.adam,
            "algorithm.actor_opt": Adam(actor, 1e-3),
            "algorithm.critic_opt": Adam(critic, 1e-3),
        }

    @staticmethod
    def perturbed(net: Tensors, s: Tensor, a: Tensor) -> Tensor:
        move = mlp(net, torch.cat([s.expand(*a.shape[:-1], s.shape[-1]), a], -1))
        return (a + 0.05 * torch.tanh(move)).clamp(-1.0, 1.0)

    def update(self, rows: Rows, noise: Noise) -> None:
        b, latent = len(rows.s), self.vae.latent
        self.vae.fit(rows.s, rows.a, noise)
        with torch.no_grad():
            z = noise.take(10, b, latent).clamp(-0.5, 0.5)
            a2 = self.perturbed(self.actor_target, rows.s2, self.vae.decode(rows.s2, z))
            q1, q2 = q(self.critic_target, rows.s2, a2)
            value = (0.75 * torch.min(q1, q2) + 0.25 * torch.max(q1, q2)).amax(0)
            y = rows.r + rows.not_done * 0.99 * value
        q1, q2 = q(self.critic, rows.s, rows.a)
        self.adams["algorithm.critic_opt"].step(mse(q1, y) + mse(q2, y))
        with torch.no_grad():
            a = self.vae.decode(rows.s, noise.take(b, latent).clamp(-0.5, 0.5))
        loss = -q(self.critic, rows.s, self.perturbed(self.actor, rows.s, a))[0].mean()
        self.adams["algorithm.actor_opt"].step(loss)
        follow(self.critic_target, self.critic, 0.005)
        follow(self.actor_target, self.actor, 0.005)


class PLAS(Reference):
    """Wenxuan-Zhou/PLAS, algos.py, `Latent.train`, on a VAE that is fitted before (`VAEModule.train`)."""

    def __init__(self, nets: dict[str, Tensors], vae: VAE) -> None:
        self.vae = vae
        actor, critic = leaves(nets["actor"]), leaves(nets["critic"])
        self.actor_target, self.critic_target = copies(actor), copies(critic)
        self.nets = {"actor": actor, "critic": critic}
        self.nets |= {"actor_target": self.actor_target, "critic_target": self.critic_target}
        self.adams = {"actor_opt": Adam(actor, 1e-4), "critic_opt": Adam(critic, 1e-3)}

    def action(self, net: Tensors, s: Tensor) -> Tensor:
        return self.vae.decode(s, 2.0 * torch.tanh(mlp(net, s)))

    def update(self, rows: Rows, noise: Noise) -> None:
        with torch.no_grad():
            q1, q2 = q(self.critic_target, rows.s2, self.action(self.actor_target, rows.s2))
            value = 0.75 * torch.min(q1, q2) + 0.25 * torch.max(q1, q2)
            y = rows.r + rows.not_done * 0.99 * value
        q1, q2 = q(self.nets["critic"], rows.s, rows.a)
        self.adams["critic_opt"].step(mse(q1, y) + mse(q2, y))
        loss = -q(self.nets["critic"], rows.s, self.action(self.nets["actor"], rows.s))[0].mean()
        self.adams["actor_opt"].step(loss)
        follow(self.critic_target, self.nets["critic"], 0.005)
        follow(self.actor_target, self.nets["actor"], 0.005)


class BEAR(Reference):
    """aviralkumar2907/BEAR, algos.py, `BEAR.train`, ``--mode auto``, a Laplacian kernel of 20; the policy's log-scale
    is clamped and the multiplier starts at 1, which are the library's documented differences."""

    def __init__(self, nets: dict[str, Tensors], updates: int, epoch: int = 5_000) -> None:
        self.vae, self.updates, self.warmup = VAE(nets["behavior"], lr=1e-3), updates, 20 * epoch
        actor, critic = leaves(nets["algorithm.actor"]), leaves(nets["algorithm.critic"])
        multiplier = leaves([torch.zeros((), dtype=torch.float64)])
        self.actor_target, self.critic_target = copies(actor), copies(critic)
        self.nets = {
            "behavior": self.vae.tensors,
            "algorithm.actor": actor,
            "algorithm.critic": critic,
            "algorithm.actor_target": self.actor_target,
            "algorithm.critic_target": self.critic_target,
            "algorithm.log_multiplier": multiplier,
        }
        self.adams = {
            "behavior_opt": self.vae.adam,
            "algorithm.actor_opt": Adam(actor, 1e-3),
            "algorithm.critic_opt": Adam(critic, 1e-3),
            "algorithm.multiplier_opt": Adam(multiplier, 1e-3),
        }

    @staticmethod
    def gaussian(net: Tensors, s: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = mlp(net, s).chunk(2, -1)
        return mean, log_std.clamp(-5.0, 2.0).exp()

    @staticmethod
    def mmd(x: Tensor, y: Tensor) -> Tensor:
        """(N, B, A) each -> (B,)."""

        def kernel(u: Tensor, v: Tensor) -> Tensor:
            return (-(u.unsqueeze(1) - v.unsqueeze(0)).abs().sum(-1) / 40.0).exp().mean((0, 1))

        return (kernel(x, x) + kernel(y, y) - 2.0 * kernel(x, y) + 1e-6).sqrt()

    def update(self, rows: Rows, noise: Noise) -> None:
        b, d = rows.a.shape
        actor, critic, multiplier = (self.nets[f"algorithm.{name}"] for name in ("actor", "critic", "log_multiplier"))
        self.vae.fit(rows.s, rows.a, noise)
        with torch.no_grad():
            mean, std = self.gaussian(self.actor_target, rows.s2)
            q1, q2 = q(self.critic_target, rows.s2, torch.tanh(mean + std * noise.take(10, b, d)))
            value = (0.75 * torch.min(q1, q2) + 0.25 * torch.max(q1, q2)).amax(0)
            y = rows.r + rows.not_done * 0.99 * value
        q1, q2 = q(critic, rows.s, rows.a)
        self.adams["algorithm.critic_opt"].step(mse(q1, y) + mse(q2, y))
        mean, std = self.gaussian(actor, rows.s)
        u = mean + std * noise.take(10, b, d).clamp(-0.5, 0.5)
        with torch.no_grad():
            raw = self.vae.decode(rows.s, noise.take(10, b, self.vae.latent).clamp(-0.5, 0.5), raw=True)
        mmd = self.mmd(raw, u)
        q1, q2 = q(critic, rows.s, torch.tanh(u))
        values = torch.min(q1.mean(0), q2.mean(0))
        alpha = multiplier[0].exp()
        loss = alpha.detach() * mmd - (values if self.updates >= self.warmup else 0.0)
        dual = -(alpha * (mmd.detach() - 0.05)).mean()
        self.adams["algorithm.actor_opt"].step(loss.mean())
        self.adams["algorithm.multiplier_opt"].step(dual)
        with torch.no_grad():
            multiplier[0].clamp_(-5.0, 10.0)
        follow(self.critic_target, critic, 0.005)
        follow(self.actor_target, actor, 0.005)
        self.updates += 1


# ------------------------------------------------------------------ deterministic policies


class TD3Like(Reference):
    """What DDPG, TD3, TD3+BC, SPOT and ReBRAC share: a deterministic policy and targets that follow."""

    def __init__(self, nets: dict[str, Tensors], actor_lr: float, lr: float, gamma: float = 0.99) -> None:
        self.actor, self.critic, self.gamma, self.count = leaves(nets["actor"]), leaves(nets["critic"]), gamma, 0
        self.actor_target, self.critic_target = copies(self.actor), copies(self.critic)
        self.nets = {
            "actor": self.actor,
            "critic": self.critic,
            "actor_target": self.actor_target,
            "critic_target": self.critic_target,
        }
        self.adams = {"actor_opt": Adam(self.actor, actor_lr), "critic_opt": Adam(self.critic, lr)}

    def next_action(self, rows: Rows, noise: Noise, masks: Sequence[Tensor] = ()) -> Tensor:
        eps = (0.2 * noise.take(*rows.a.shape)).clamp(-0.5, 0.5)
        return (torch.tanh(mlp(self.actor_target, rows.s2, masks)) + eps).clamp(-1.0, 1.0)

    def follow(self) -> None:
        follow(self.critic_target, self.critic, 0.005)
        follow(self.actor_target, self.actor, 0.005)


class DDPG(TD3Like):
    """sfujim/TD3, OurDDPG.py, commit 6a9f7610, `train`: one critic, no smoothing, no delay."""

    def update(self, rows: Rows, noise: Noise) -> None:
        with torch.no_grad():
            (value,) = q(self.critic_target, rows.s2, torch.tanh(mlp(self.actor_target, rows.s2)))
            y = rows.r + rows.not_done * self.gamma * value
        self.adams["critic_opt"].step(mse(q(self.critic, rows.s, rows.a)[0], y))
        self.adams["actor_opt"].step(-q(self.critic, rows.s, torch.tanh(mlp(self.actor, rows.s)))[0].mean())
        self.follow()


class TD3BC(TD3Like):
    """sfujim/TD3_BC, TD3_BC.py, `train`; gamma .99, tau .005, alpha 2.5, every second step."""

    def update(self, rows: Rows, noise: Noise) -> None:
        self.count += 1
        with torch.no_grad():
            q1, q2 = q(self.critic_target, rows.s2, self.next_action(rows, noise))
            y = rows.r + rows.not_done * self.gamma * torch.min(q1, q2)
        q1, q2 = q(self.critic, rows.s, rows.a)
        self.adams["critic_opt"].step(mse(q1, y) + mse(q2, y))
        if self.count % 2:
            return
        pi = torch.tanh(mlp(self.actor, rows.s))
        value = q(self.critic, rows.s, pi)[0]
        weight = 2.5 / value.abs().mean().detach()
        self.adams["actor_opt"].step(-weight * value.mean() + mse(pi, rows.a))
        self.follow()


class TD3(TD3Like):
    """sfujim/TD3, TD3.py, `train`."""

    def update(self, rows: Rows, noise: Noise) -> None:
        self.count += 1
        with torch.no_grad():
            q1, q2 = q(self.critic_target, rows.s2, self.next_action(rows, noise))
            y = rows.r + rows.not_done * self.gamma * torch.min(q1, q2)
        q1, q2 = q(self.critic, rows.s, rows.a)
        self.adams["critic_opt"].step(mse(q1, y) + mse(q2, y))
        if self.count % 2:
            return
        self.adams["actor_opt"].step(-q(self.critic, rows.s, torch.tanh(mlp(self.actor, rows.s)))[0].mean())
        self.follow()


class BC(Reference):
    """tinkoff-ai/CORL, algorithms/offline/any_percent_bc.py, `train`."""

    def __init__(self, nets: dict[str, Tensors]) -> None:
        actor = leaves(nets["actor"])
        self.nets, self.adams = {"actor": actor}, {"actor_opt": Adam(actor, 3e-4)}

    def update(self, rows: Rows, noise: Noise) -> None:
        self.adams["actor_opt"].step(mse(torch.tanh(mlp(self.nets["actor"], rows.s)), rows.a))


class SPOT(TD3Like):
    """thuml/SPOT, SPOT.py, `train` and, with ``cool``, `train_online`; the target policy keeps its dropout."""

    def __init__(
        self, nets: dict[str, Tensors], vae: VAE, lambd: float, dropout: float, cool: bool, **rates: float
    ) -> None:
        super().__init__(nets, **rates)
        self.vae, self.lambd, self.dropout, self.cool = vae, lambd, dropout, cool

    def masks(self, noise: Noise, b: int) -> list[Tensor]:
        widths = [self.actor[i].shape[0] for i in (0, 2)]
        return [noise.take(b, width) / (1.0 - self.dropout) for width in widths] if self.dropout else []

    def neg_log_beta(self, s: Tensor, a: Tensor, noise: Noise) -> Tensor:
        """`VAE.elbo_loss` of one sample: means over dimensions, beta 1/2."""
        mean, std = self.vae.encode(s, a)
        recon = self.vae.decode(s, mean + std * noise.take(*mean.shape))
        kl = -0.5 * (1.0 + torch.log(std**2) - mean**2 - std**2).mean(-1)
        return ((recon - a) ** 2).mean(-1) + 0.5 * kl

    def update(self, rows: Rows, noise: Noise) -> None:
        self.count += 1
        b = len(rows.s)
        with torch.no_grad():
            masks = self.masks(noise, b)
            q1, q2 = q(self.critic_target, rows.s2, self.next_action(rows, noise, masks))
            y = rows.r + rows.not_done * self.gamma * torch.min(q1, q2)
        q1, q2 = q(self.critic, rows.s, rows.a)
        self.adams["critic_opt"].step(mse(q1, y) + mse(q2, y))
        if self.count % 2:
            return
        pi = torch.tanh(mlp(self.actor, rows.s, self.masks(noise, b)))
        value = q(self.critic, rows.s, pi)[0]
        lambd = self.lambd * max(0.2, 1.0 - self.count / 1_000_000) if self.cool else self.lambd
        penalty = self.neg_log_beta(rows.s, pi, noise).mean()
        self.adams["actor_opt"].step(-value.mean() / value.abs().mean().detach() + lambd * penalty)
        self.follow()


class ReBRAC(TD3Like):
    """tinkoff-ai/ReBRAC, src/algorithms/rebrac.py, `update_td3` at even steps and `update_td3_no_targets` at odd ones,
    counted from 0; with ``td3`` in TD3's order."""

    def __init__(self, nets: dict[str, Tensors], beta_1: float, beta_2: float, td3: bool, **rates: float) -> None:
        super().__init__(nets, **rates)
        self.beta_1, self.beta_2, self.td3 = beta_1, beta_2, td3

    def update(self, rows: Rows, noise: Noise) -> None:
        with torch.no_grad():
            a2 = self.next_action(rows, noise)
            q1, q2 = q(self.critic_target, rows.s2, a2, norm=True)
            value = torch.min(q1, q2) - self.beta_2 * ((a2 - rows.a2) ** 2).sum(-1)
            y = rows.r + rows.not_done * self.gamma * value
        q1, q2 = q(self.critic, rows.s, rows.a, norm=True)
        self.adams["critic_opt"].step(((q1 - y) ** 2).mean() + ((q2 - y) ** 2).mean())
        self.count += 1
        if (self.count - 1) % 2 != self.td3:
            return
        pi = torch.tanh(mlp(self.actor, rows.s))
        value = torch.min(*q(self.critic, rows.s, pi, norm=True))
        weight = 1.0 / value.abs().mean().detach()
        loss = (self.beta_1 * ((pi - rows.a) ** 2).sum(-1) - weight * value).mean()
        before = copies(self.actor)
        self.adams["actor_opt"].step(loss)
        follow(self.actor_target, self.actor if self.td3 else before, 0.005)
        follow(self.critic_target, self.critic, 0.005)


# ------------------------------------------------------------------ values and stochastic policies


class IQL(Reference):
    """ikostrikov/implicit_q_learning, learner.py, `_update_jit`: V, actor (of the new V), Q (of the new V), target."""

    def __init__(self, nets: dict[str, Tensors], expectile: float, temperature: float, horizon: int) -> None:
        actor, value, critic = (leaves(nets[name]) for name in ("actor", "value", "critic"))
        self.expectile, self.temperature, self.horizon = expectile, temperature, horizon
        self.nets = {"actor": actor, "value": value, "critic": critic, "critic_target": copies(critic)}
        self.adams = {f"{name}_opt": Adam(self.nets[name], 3e-4) for name in ("actor", "value", "critic")}

    def update(self, rows: Rows, noise: Noise) -> None:
        actor, value, critic, target = self.nets.values()
        with torch.no_grad():
            least = torch.min(*q(target, rows.s, rows.a))
        diff = least - mlp(value, rows.s).squeeze(-1)
        weight = torch.where(diff > 0.0, self.expectile, 1.0 - self.expectile)
        self.adams["value_opt"].step((weight * diff**2).mean())
        with torch.no_grad():
            v, v2 = mlp(value, rows.s).squeeze(-1), mlp(value, rows.s2).squeeze(-1)
            exp_a = torch.exp((least - v) * self.temperature).clamp(max=100.0)
            y = rows.r + 0.99 * rows.not_done * v2
        log_std, mean = actor[0].clamp(-5.0, 2.0), torch.tanh(mlp(actor[1:], rows.s))
        z = (rows.a - mean) / log_std.exp()
        log_prob = (-0.5 * z**2 - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)
        adam = self.adams["actor_opt"]
        adam.lr = 3e-4 * 0.5 * (1.0 + math.cos(math.pi * min(adam.steps, self.horizon) / self.horizon))
        adam.step(-(exp_a * log_prob).mean())
        q1, q2 = q(critic, rows.s, rows.a)
        self.adams["critic_opt"].step(((q1 - y) ** 2 + (q2 - y) ** 2).mean())
        follow(target, critic, 0.005)


class IDQL(Reference):
    """philippe-eecs/IDQL, jaxrl5/agents/ddpm_iql/ddpm_iql_learner.py, `update_v` and `update_q`; the losses of the
    critics are summed, not averaged, which is a documented difference."""

    def __init__(self, nets: dict[str, Tensors], expectile: float) -> None:
        value, critic = leaves(nets["value"]), leaves(nets["critic"])
        self.expectile = expectile
        self.nets = {"value": value, "critic": critic, "critic_target": copies(critic)}
        self.adams = {f"{name}_opt": Adam(self.nets[name], 3e-4) for name in ("value", "critic")}

    def update(self, rows: Rows, noise: Noise) -> None:
        value, critic, target = self.nets.values()
        with torch.no_grad():
            least = torch.min(*q(target, rows.s, rows.a))
        diff = least - mlp(value, rows.s).squeeze(-1)
        weight = torch.where(diff > 0.0, self.expectile, 1.0 - self.expectile)
        self.adams["value_opt"].step((weight * diff**2).mean())
        with torch.no_grad():
            y = rows.r + 0.99 * rows.not_done * mlp(value, rows.s2).squeeze(-1)
        q1, q2 = q(critic, rows.s, rows.a)
        self.adams["critic_opt"].step(mse(q1, y) + mse(q2, y))
        follow(target, critic, 0.005)


class OneStep(Reference):
    """davidbrandfonbrener/onestep-rl, q_learner.py, commit 99994433, `SarsaLearner.loss`; with the library's documented
    differences: half of the loss, a target that follows at each step at half the rate."""

    def __init__(self, nets: dict[str, Tensors]) -> None:
        critic = leaves(nets["critic"])
        self.nets = {"critic": critic, "critic_target": copies(critic)}
        self.adams = {"critic_opt": Adam(critic, 1e-4)}

    def update(self, rows: Rows, noise: Noise) -> None:
        critic, target = self.nets.values()
        with torch.no_grad():
            y = rows.r + rows.not_done * 0.99 * q(target, rows.s2, rows.a2)[0]
        self.adams["critic_opt"].step(0.5 * mse(q(critic, rows.s, rows.a)[0], y))
        follow(target, critic, 0.5 * 0.005)


class SAC(Reference):
    """DLR-RM/stable-baselines3, stable_baselines3/sac/sac.py, version 2.8.0, commit 5e00d264, `train`, with
    ``ent_coef="auto"``; with the library's documented differences: exact log-densities, a smooth bound of the
    log-scale, losses of the critics not halved. The noise of the next actions comes first."""

    def __init__(self, nets: dict[str, Tensors]) -> None:
        actor, critic = leaves(nets["actor"]), leaves(nets["critic"])
        log_alpha = leaves([torch.zeros((), dtype=torch.float64)])
        self.nets = {"actor": actor, "critic": critic, "critic_target": copies(critic), "log_alpha": log_alpha}
        self.adams = {f"{name}_opt": Adam(self.nets[name], 3e-4) for name in ("actor", "critic")}
        self.adams["alpha_opt"] = Adam(log_alpha, 3e-4)

    def sample(self, s: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """a (B, A), log pi (B,); the log-scale is in (-5, 2), 0 with slope 1 where the network's output is 0."""
        mean, raw = mlp(self.nets["actor"], s).chunk(2, -1)
        middle, half = -1.5, 3.5
        start = -middle / half
        std = (middle + half * torch.tanh(math.atanh(start) + raw / (half * (1.0 - start**2)))).exp()
        u = mean + std * noise.take(*mean.shape)
        return torch.tanh(u), tanh_density(mean, std, u)

    def update(self, rows: Rows, noise: Noise) -> None:
        _, critic, target, log_alpha = self.nets.values()
        alpha = log_alpha[0].detach().exp()
        with torch.no_grad():
            a2, log_pi = self.sample(rows.s2, noise)
            value = torch.min(*q(target, rows.s2, a2)) - alpha * log_pi
            y = rows.r + rows.not_done * 0.99 * value
        a, log_pi = self.sample(rows.s, noise)
        target_entropy = -a.shape[-1]
        self.adams["alpha_opt"].step(-(log_alpha[0] * (log_pi + target_entropy).detach()).mean())
        q1, q2 = q(critic, rows.s, rows.a)
        self.adams["critic_opt"].step(mse(q1, y) + mse(q2, y))
        self.adams["actor_opt"].step((alpha * log_pi - torch.min(*q(critic, rows.s, a))).mean())
        follow(target, critic, 0.005)


class SoftQ(Reference):
    """haarnoja/softqlearning, softqlearning/algorithms/sql.py, commit 6f51eaca, `_create_td_update`, of Q / alpha and
    rewards of scale 1 / alpha; with the library's documented differences: two critics, moving averages as targets,
    other uniform actions for each state, losses not halved."""

    def __init__(self, nets: dict[str, Tensors], alpha: float, particles: int) -> None:
        critic = leaves(nets["critic"])
        self.alpha, self.particles = alpha, particles
        self.nets = {"critic": critic, "critic_target": copies(critic)}
        self.adams = {"critic_opt": Adam(critic, 3e-4)}

    def update(self, rows: Rows, noise: Noise) -> None:
        critic, target = self.nets.values()
        b, d = rows.a.shape
        with torch.no_grad():
            uniform = 2.0 * noise.take(self.particles, b, d) - 1.0
            scaled = torch.min(*q(target, rows.s2, uniform)) / self.alpha
            value = scaled.logsumexp(0) - math.log(self.particles) + d * math.log(2.0)
            y = self.alpha * (rows.r / self.alpha + rows.not_done * 0.99 * value)
        q1, q2 = q(critic, rows.s, rows.a)
        self.adams["critic_opt"].step(mse(q1, y) + mse(q2, y))
        follow(target, critic, 0.005)


class CQL(Reference):
    """aviralkumar2907/CQL, d4rl/rlkit/torch/sac/cql.py, `train_from_torch`, min_q_version 3, deterministic backup; with
    the library's documented differences: exact log-densities, a sample of its own for the temperature, the policy's
    gradient through the critics before their step, no clamp of the mean, 40,000 steps of cloning."""

    def __init__(self, nets: dict[str, Tensors], updates: int, backup: int, threshold: float | None) -> None:
        actor, critic = leaves(nets["actor"]), leaves(nets["critic"])
        scalar = torch.zeros((), dtype=torch.float64)
        self.updates, self.backup, self.threshold = updates, backup, threshold
        self.nets = {"actor": actor, "critic": critic, "critic_target": copies(critic)}
        self.nets["log_temperature"] = leaves([scalar])
        self.adams = {"actor_opt": Adam(actor, 1e-4), "critic_opt": Adam(critic, 3e-4)}
        self.adams["temperature_opt"] = Adam(self.nets["log_temperature"], 1e-4)
        if threshold is not None:
            self.nets["log_multiplier"] = leaves([scalar])
            self.adams["multiplier_opt"] = Adam(self.nets["log_multiplier"], 3e-4)

    def policy(self, s: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = mlp(self.nets["actor"], s).chunk(2, -1)
        return mean, log_std.clamp(-5.0, 2.0).exp()

    def sample(self, s: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.policy(s)
        u = mean + std * eps
        return torch.tanh(u), tanh_density(mean, std, u)

    def conservative(self, rows: Rows, noise: Noise) -> list[Tensor]:
        """For each critic logsumexp over 30 actions minus Q of the data, mean over the batch."""
        b, d = rows.a.shape
        with torch.no_grad():
            uniform = 2.0 * noise.take(10, b, d) - 1.0
            there, there_density = self.sample(rows.s2, noise.take(10, b, d))
            here, here_density = self.sample(rows.s, noise.take(10, b, d))
        parts: list[tuple[Tensor, Tensor | float]] = [
            (uniform, d * math.log(0.5)),
            (there, there_density),
            (here, here_density),
        ]
        values = [[value - density for value in q(self.nets["critic"], rows.s, a)] for a, density in parts]
        data = q(self.nets["critic"], rows.s, rows.a)
        return [(torch.cat([part[e] for part in values]).logsumexp(0) - data[e]).mean() for e in (0, 1)]

    def actor_loss(self, rows: Rows, noise: Noise) -> Tensor:
        a, log_pi = self.sample(rows.s, noise.take(*rows.a.shape))
        alpha = self.nets["log_temperature"][0].detach().exp()
        objective = torch.min(*q(self.nets["critic"], rows.s, a))
        if self.updates < 40_000:
            objective = tanh_density(*self.policy(rows.s), torch.atanh(rows.a))
        return (alpha * log_pi - objective).mean()

    def update(self, rows: Rows, noise: Noise) -> None:
        b, d = rows.a.shape
        with torch.no_grad():
            _, log_pi = self.sample(rows.s, noise.take(b, d))
        self.adams["temperature_opt"].step(-(self.nets["log_temperature"][0] * (log_pi - d)).mean())
        policy_loss = self.actor_loss(rows, noise)
        with torch.no_grad():
            a2, _ = self.sample(rows.s2, noise.take(self.backup, b, d))
            best = [value.amax(0) for value in q(self.nets["critic_target"], rows.s2, a2)]
            y = rows.r + rows.not_done * 0.99 * torch.min(*best)
        q1, q2 = q(self.nets["critic"], rows.s, rows.a)
        gaps = [5.0 * gap for gap in self.conservative(rows, noise)]
        loss = mse(q1, y) + mse(q2, y)
        if self.threshold is None:
            critic_loss, dual = loss + gaps[0] + gaps[1], None
        else:
            alpha = self.nets["log_multiplier"][0].exp().clamp(0.0, 1e6)
            critic_loss = loss + sum(alpha.detach() * (gap - self.threshold) for gap in gaps)
            dual = 0.5 * sum((-alpha * (gap.detach() - self.threshold) for gap in gaps), torch.zeros(()))
        self.adams["actor_opt"].step(policy_loss)
        self.adams["critic_opt"].step(critic_loss)
        if dual is not None:
            self.adams["multiplier_opt"].step(dual)
        follow(self.nets["critic_target"], self.nets["critic"], 0.005)
        self.updates += 1


def tensors_of(module: Any) -> Tensors:
    """Its parameters, or itself where it is one."""
    return [module] if isinstance(module, Tensor) else list(module.parameters())
