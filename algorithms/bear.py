"""BEAR: a stochastic policy that climbs Q while the MMD between its samples and the behavior's stays small.

A sampled MMD with few samples is small as soon as the supports agree, so the policy may concentrate within the data's
support; a dual variable keeps it below a threshold.

A. Kumar, J. Fu, G. Tucker, S. Levine: Stabilizing Off-Policy Q-Learning via Bootstrapping Error Reduction, NeurIPS
2019.
Reference code: aviralkumar2907/BEAR, algos.py, commit a57faff7770c83fe5b655f3d4f24fc19566c6358; settings of main.py,
commit 16062a7a41df96ae53e16ccc8d320bb84eaf0380, with ``--mode auto``.

Differences from the reference code
-----------------------------------
- The behavior model is an argument. The published procedure is ``Jointly(cvae, BEAR(spec, DecoderMeans(cvae, 0.5)))``.
- The MMD compares actions before the tanh, as in the reference; the behavior's are recovered by atanh, so that any
  model that can be sampled serves. That equals the decoder's raw output up to |u| = 7.25, where actions are clamped to
  1 - 1e-6: in float32 tanh itself rounds to 1 from |u| = 9.01 on, and loses u well before.
- The log-multiplier starts at 0 (the reference draws it from N(0, 1)); the policy's log-scale is clamped to [-5, 2]
  (there it is not bounded); the ensemble-variance term, off by default there, and bootstrap masks are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import Proposals, require_capability
from offline_vi.distributions.squashed import TanhNormal
from offline_vi.nn.networks import Critic, TanhNormalPolicy, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import (
    Kernel,
    bellman_target,
    clipped_double_q,
    gaussian_kernel,
    laplacian_kernel,
    mmd_squared,
    soft_value,
    td_loss,
)
from offline_vi.types import Batch, Metrics, Spec

KERNELS = {"laplacian": laplacian_kernel, "gaussian": gaussian_kernel}


@dataclass(frozen=True)
class BEARConfig:
    """Hyper-parameters; the defaults are those of the reference code."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target networks
    lmbda: float = 0.75  # lambda: weight of the minimum over the critics in the target
    threshold: float = 0.05  # epsilon: largest MMD (not squared)
    kernel: str = "laplacian"  # laplacian | gaussian
    kernel_sigma: float = 20.0  # sigma: the kernel is exp(-distance / (2 sigma))
    num_candidates: int = 10  # p: policy samples in the target and when acting
    num_match: int = 10  # n = m: samples of policy and behavior in the MMD
    policy_noise_clip: float = 0.5  # policy noise in the actor's loss is clipped to this many standard deviations
    warmup: int = 100_000  # steps in which the policy only matches the behavior
    log_multiplier: float = 0.0  # log alpha at the start
    log_multiplier_range: tuple[float, float] = (-5.0, 10.0)  # where log alpha is kept
    lr: float = 1e-3  # Adam, of actor, critics and multiplier
    hidden: tuple[int, ...] = (400, 300)  # units per layer, of actor and critics
    batch_size: int = 100  # transitions per step


class BEAR(Algorithm):
    """Bootstrapping error accumulation reduction on any proposals of actions."""

    updates: Tensor

    def __init__(self, spec: Spec, proposals: Proposals, config: BEARConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BEARConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.proposals = require_capability(proposals, Proposals, "BEAR")
        self.kernel: Kernel = KERNELS[config.kernel](config.kernel_sigma)
        self.actor = TanhNormalPolicy(spec, config.hidden, inputs=self.inputs)
        self.actor_target = target_of(self.actor)
        self.critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.log_multiplier = nn.Parameter(torch.full(spec.stack, config.log_multiplier))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.actor_opt = adam(self.actor.parameters(), lr=config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)
        self.multiplier_opt = adam([self.log_multiplier], lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, critic_loss)

        actor_loss, actor_metrics = self.actor_loss(batch)
        multiplier_loss, multiplier_metrics = self.multiplier_loss(actor_metrics["actor/mmd"])
        gradient_step(self.actor_opt, actor_loss)
        gradient_step(self.multiplier_opt, multiplier_loss)
        self.log_multiplier.data.clamp_(*self.config.log_multiplier_range)

        polyak_(self.critic_target, self.critic, self.config.tau)
        polyak_(self.actor_target, self.actor, self.config.tau)
        self.updates += 1
        return critic_metrics | actor_metrics | multiplier_metrics

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma max_i [lambda min_j Q'_j(s', a_i) + (1 - lambda) max_j Q'_j(s', a_i)], a_i ~ pi'(.|s'), (B,)."""
        action = self.actor_target(batch.next_obs).rsample((self.config.num_candidates,))  # (N, B, A)
        value = clipped_double_q(self.critic_target(batch.next_obs, action), self.config.lmbda)  # (E, N, B) -> (N, B)
        return bellman_target(batch, soft_value(value, temperature=0.0), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def clipped_samples(self, policy: TanhNormal) -> Tensor:
        """u = m + s clip(eps), before the tanh, (N, B, A)."""
        normal, clip = policy.base, self.config.policy_noise_clip
        shape = (self.config.num_match, *normal.loc.shape)
        noise = torch.randn(shape, device=normal.loc.device, dtype=normal.loc.dtype)
        return normal.loc + normal.stddev * noise.clamp(-clip, clip)

    def mmd(self, batch: Batch, u: Tensor) -> Tensor:
        """MMD between u (N, B, A) and behavior samples, both before the tanh, (B,)."""
        with torch.no_grad():
            sample = self.proposals.at_obs(batch, self.config.num_match).clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        return (mmd_squared(torch.atanh(sample), u, self.kernel, biased=True) + 1e-6).sqrt()

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_B [-min_j mean_i Q_j(s, a_i) + alpha MMD]: eq. 4 of the paper with its dual variable; without Q in the
        first ``warmup`` steps."""
        u = self.clipped_samples(self.actor(batch.obs))
        mmd = self.mmd(batch, u)
        q = self.critic(batch.obs, torch.tanh(u)).mean(1).amin(0)  # (E, N, B) -> (B,)
        active = (self.updates >= self.config.warmup).to(q.dtype)
        loss = (-active * q + self.log_multiplier.detach().exp().unsqueeze(-1) * mmd).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/mmd": mmd.detach().mean(-1), "actor/q": q.detach().mean(-1)}

    def multiplier_loss(self, mmd: Tensor) -> tuple[Tensor, Metrics]:
        """-alpha (MMD - epsilon): ascent in the dual variable alpha = exp(log alpha)."""
        multiplier = self.log_multiplier.exp()
        loss = -multiplier * (mmd - self.config.threshold)
        return loss, {"actor/multiplier": multiplier.detach()}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The policy sample with the highest Q_1, (B, O) -> (B, A)."""
        action = self.actor(obs).rsample((self.config.num_candidates,))  # (N, B, A)
        best = self.critic.q1(obs, action).argmax(0)  # (B,)
        chosen: Tensor = action[best, torch.arange(obs.shape[0], device=obs.device)]
        return chosen
