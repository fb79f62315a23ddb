"""Your own algorithm: AWAC within a behavior model's support. Command: --plugin examples/own_algorithm.py"""

import torch

import offline_vi as ovi
from offline_vi.algorithms import BCQConfig  # any frozen dataclass will do
from offline_vi.nn import Critic, TanhNormalPolicy, adam, gradient_step, polyak_, target_of
from offline_vi.rl import bellman_target, td_loss


@ovi.register_algorithm("awac", behavior="cvae", summary="advantage-weighted cloning, values from a model's samples")
class AWAC(ovi.Algorithm):
    def __init__(self, spec: ovi.Spec, proposals: ovi.Proposals, config: BCQConfig | None = None):
        super().__init__()
        self.config = config = config or BCQConfig()
        self.proposals, self.batch_size = proposals, config.batch_size
        self.actor, self.critic = TanhNormalPolicy(spec, config.hidden), Critic(spec, config.hidden)
        self.critic_target = target_of(self.critic)
        self.actor_opt, self.critic_opt = (adam(net.parameters(), config.lr) for net in (self.actor, self.critic))

    def update(self, batch):
        count = self.config.num_candidates
        with torch.no_grad():  # Q is (E, N, B)
            after = self.critic_target(batch.next_obs, self.proposals.at_next_obs(batch, count)).amin(0).mean(0)
            value = self.critic(batch.obs, self.proposals.at_obs(batch, count)).amin(0).mean(0)
            weight = (self.critic(batch.obs, batch.action).amin(0) - value).exp().clamp(max=100.0)
        target = bellman_target(batch, after, self.config.discount)
        loss, metrics = td_loss(self.critic(batch.obs, batch.action), target)
        gradient_step(self.critic_opt, loss)
        gradient_step(self.actor_opt, -(weight * self.actor(batch.obs).log_prob(batch.action)).mean())
        polyak_(self.critic_target, self.critic, self.config.tau)
        return metrics

    def act(self, obs):
        return self.actor(obs).mode.detach()
