"""Train on a log of your own: a CSV file, and a file that says what its columns mean. Here the log is of a heater."""

import argparse
from pathlib import Path

import numpy as np

import offline_vi as ovi

COLUMNS = """
episode = "day"
time = "minute"
obs = ["room", "outside"]
action = "power"         # watts
reward = "comfort"
terminated = false       # no day ended for a reason of the task: all were cut at midnight
action_low = 0.0
action_high = 2000.0
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2_000, help="gradient steps (default: %(default)s)")
parser.add_argument("--output", default="runs/own-logs", help="run directory (default: %(default)s)")
options = parser.parse_args()

rng, lines = np.random.default_rng(0), ["day,minute,room,outside,power,comfort"]
for day in range(30):
    room, outside = rng.normal(17.0, 2.0), rng.normal(5.0, 4.0)
    for minute in range(0, 1440, 30):
        power = np.clip(400.0 * (21.0 - room) + 300.0 * rng.normal(), 0.0, 2000.0)
        lines.append(f"{day},{minute},{room:.3f},{outside:.3f},{power:.1f},{-abs(room - 21.0):.3f}")
        room += 0.05 * (outside - room) + 0.0006 * power
Path("heater.csv").write_text("\n".join(lines))
Path("heater.toml").write_text(COLUMNS)

ovi.set_seed(0)
data = ovi.datasets.load("heater.csv", columns="heater.toml")
agent = ovi.algorithms.IQL(data.spec)
ovi.fit(agent, data, steps=options.steps, run=options.output)  # saved: `offline-vi evaluate` and `resume` read it
