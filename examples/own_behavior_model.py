"""Your own behavior model, a tanh-Laplace, in BCQ and SPOT. Command: --plugin examples/own_behavior_model.py"""

import sys

from torch.distributions import Laplace, TanhTransform, TransformedDistribution

import offline_vi as ovi
from offline_vi.behavior import DensityModel, GaussianBehaviorConfig  # any frozen dataclass will do


@ovi.register_behavior("laplace", summary="tanh-Laplace: one mode, heavy tails, exact density")
class TanhLaplace(DensityModel):
    def __init__(self, spec: ovi.Spec, config: GaussianBehaviorConfig | None = None):
        super().__init__()
        self.spec, self.config = spec, config or GaussianBehaviorConfig(hidden=(256, 256))
        self.net = ovi.nn.mlp([spec.obs_dim, *self.config.hidden, 2 * spec.action_dim])

    def distribution(self, obs):  # (B, O) -> batch shape (B, A)
        loc, log_scale = self.net(obs).chunk(2, dim=-1)
        return TransformedDistribution(Laplace(loc, log_scale.clamp(-5, 2).exp()), TanhTransform(cache_size=1))

    def log_prob(self, obs, action, num_samples=1):  # (B, O), (..., B, A) -> (..., B) nats
        return self.distribution(obs).log_prob(action.clamp(-1 + 1e-6, 1 - 1e-6)).sum(-1)

    def loss(self, obs, action):  # (B, O), (B, A) -> nats, metrics
        return -self.log_prob(obs, action).mean(), {}

    def sample(self, obs, num_samples=1):  # (B, O) -> (N, B, A)
        return self.distribution(obs).sample((num_samples,))


if __name__ == "__main__":  # python own_behavior_model.py [STEPS]
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    ovi.set_seed(0)
    data = ovi.datasets.load("offline-vi/pendulum/mixed-v0")
    model = TanhLaplace(data.spec)
    ovi.fit_behavior(model, data, steps)
    ovi.fit(ovi.algorithms.BCQ(data.spec, model), data, steps, run="runs/laplace-bcq")
    ovi.fit(ovi.algorithms.SPOT(data.spec, model), data, steps, run="runs/laplace-spot")
