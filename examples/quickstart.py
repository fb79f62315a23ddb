"""Collect a data set, train BCQ on it, save it, load it again and score it, within minutes on one core."""

import argparse

import offline_vi as ovi

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--dataset", default="offline-vi/pendulum/mixed-v0", help="a name or an .hdf5 file")
parser.add_argument("--steps", type=int, default=5_000, help="gradient steps of each network (default: %(default)s)")
parser.add_argument("--output", default="runs/quickstart", help="run directory (default: %(default)s)")
options = parser.parse_args()

ovi.set_seed(0)  # before anything is built
data = ovi.datasets.load(options.dataset)
behavior = ovi.behavior.CVAE(data.spec)
ovi.fit_behavior(behavior, data, steps=options.steps)

agent = ovi.algorithms.BCQ(data.spec, ovi.behavior.DecoderMeans(behavior))
ovi.fit(agent, data, steps=options.steps, run=options.output)

agent = ovi.load(options.output)
print(f"normalized score {ovi.evaluate(agent, data.task, episodes=10, seed=100).mean:.1f}")
