"""BCQ as it was published: its conditional VAE and its critics take one step each, in turn."""

import argparse

import offline_vi as ovi

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--dataset", nargs="+", default=["hopper-medium-v2"], help="names or .hdf5 files, joined")
parser.add_argument("--env", help="Gymnasium id to score on, if the name does not say")
parser.add_argument("--steps", type=int, default=1_000_000, help="gradient steps (default: %(default)s)")
parser.add_argument("--seed", type=int, default=0, help="of initialization, batches and noise (default: %(default)s)")
parser.add_argument("--output", default="runs/published-bcq", help="run directory (default: %(default)s)")
options = parser.parse_args()

ovi.set_seed(options.seed)
data = ovi.datasets.load(*options.dataset, env=options.env)
cvae = ovi.behavior.CVAE(data.spec, ovi.behavior.CVAEConfig.published(data.spec))
agent = ovi.Jointly(cvae, ovi.algorithms.BCQ(data.spec, ovi.behavior.DecoderMeans(cvae, noise_clip=0.5)))
ovi.fit(agent, data, steps=options.steps, seed=options.seed, eval_every=5_000, run=options.output)
