"""Your own behavior model, a tanh-Laplace, in BCQ and SPOT. Command: --plugin examples/own_behavior_model.py"""

import sys

import torch

import offline_vi as ovi
from offline_vi.behavior import DensityModel, GaussianBehaviorConfig  # any frozen dataclass will do


@ovi.register_behavior("laplace", summary="tanh-Laplace: one mode, heavy tails, exact density")
class TanhLaplace(DensityModel):
    def __init__(self, spec: ovi.Spec, config: GaussianBehaviorConfig | None = None):
        super().__init__()
        self.spec, self.config = spec, config or GaussianBehaviorConfig(hidden=(256, 256))
        self.inputs = ovi.behavior.RunningNormalizer(spec)  # standardizes observations
        self.net = ovi.nn.mlp([spec.obs_dim, *self.config.hidden, 2 * spec.action_dim])

    def parameters_at(self, obs):  # (B, O) -> (B, A), (B, A)
        loc, log_scale = self.net(self.inputs(obs)).chunk(2, dim=-1)
        return loc, log_scale.clamp(-5, 2).exp()

    def log_prob(self, obs, action, num_samples=1):  # (B, O), (..., B, A) -> (..., B) nats
        (loc, scale), action = self.parameters_at(obs), action.clamp(-1 + 1e-6, 1 - 1e-6)
        return (-(action.atanh() - loc).abs() / scale - (2 * scale).log() - torch.log1p(-action.square())).sum(-1)

    def loss(self, obs, action):  # (B, O), (B, A) -> nats, metrics
        self.inputs.observe(obs)
        return -self.log_prob(obs, action).mean(), {}

    def sample(self, obs, num_samples=1):  # (B, O) -> (N, B, A)
        (loc, scale), u = self.parameters_at(obs), torch.rand(num_samples, *obs.shape[:-1], self.spec.action_dim) - 0.5
        return torch.tanh(loc - scale * u.sign() * torch.log1p(-2 * u.abs()))


if __name__ == "__main__":  # python own_behavior_model.py [STEPS]
    steps, data = int([*sys.argv, 5_000][1]), ovi.datasets.load("offline-vi/pendulum/mixed-v0")
    ovi.fit_behavior(model := TanhLaplace(data.spec), data, steps)
    ovi.fit(ovi.algorithms.BCQ(data.spec, model), data, steps, run="runs/laplace-bcq")
    ovi.fit(ovi.algorithms.SPOT(data.spec, model), data, steps, run="runs/laplace-spot")
