"""Continue to train an agent in its environment, with its original data in half of every batch."""

import argparse

import offline_vi as ovi

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run", help="the directory of a trained agent, e.g. runs/quickstart")
parser.add_argument("--dataset", default="offline-vi/pendulum/mixed-v0", help="the data that it was trained on")
parser.add_argument("--steps", type=int, default=2_000, help="steps in the environment (default: %(default)s)")
parser.add_argument("--output", default="runs/finetuned", help="directory of the new agent (default: %(default)s)")
options = parser.parse_args()

data = ovi.datasets.load(options.dataset)
agent = ovi.load(options.run)
before = ovi.evaluate(agent, data.task, episodes=10, seed=100).mean
explorer = ovi.GaussianNoise(agent, sigma=0.1)
_, collected = ovi.fit_online(
    agent, data.task, data.spec, options.steps, explorer=explorer, warmup_policy=explorer, warmup=500, offline=data
)
after = ovi.evaluate(agent, data.task, episodes=10, seed=100).mean
ovi.save(agent, options.output, task=data.task, overwrite=True)
print(f"normalized score {before:.1f} -> {after:.1f} after {len(collected):,} steps in the environment")
