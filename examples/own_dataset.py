"""Train on arrays of your own. Here a noisy controller pushes a point around."""

import argparse

import numpy as np

import offline_vi as ovi

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2_000, help="gradient steps (default: %(default)s)")
parser.add_argument("--output", default="runs/own-dataset", help="run directory (default: %(default)s)")
options = parser.parse_args()

rng, episodes, length = np.random.default_rng(0), 50, 40
obs = np.zeros((episodes, length + 1, 2), np.float32)
action = np.zeros((episodes, length, 2), np.float32)
obs[:, 0] = rng.normal(size=(episodes, 2))
for t in range(length):
    action[:, t] = np.clip(-obs[:, t] + 0.3 * rng.normal(size=(episodes, 2)), -1.0, 1.0)
    obs[:, t + 1] = obs[:, t] + 0.1 * action[:, t]

columns = {
    "observations": obs[:, :-1].reshape(-1, 2),
    "next_observations": obs[:, 1:].reshape(-1, 2),
    "actions": action.reshape(-1, 2),  # in [-1, 1]; other units: action_range="data"
    "rewards": -np.linalg.norm(obs[:, 1:], axis=-1).reshape(-1),
    "terminals": np.zeros(episodes * length, bool),  # the task ended: do not bootstrap
    "timeouts": np.tile(np.arange(1, length + 1) == length, episodes),  # the episode was cut
}
ovi.set_seed(0)
data = ovi.Transitions.from_d4rl(columns, next_obs="within_episode")
agent = ovi.algorithms.IQL(data.spec)
ovi.fit(agent, data, steps=options.steps, run=options.output)
