"""offline-vi demo: the main job, small enough to watch: data, behavior model, BCQ, score, plot."""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING

from offline_vi.ranges import check_numbers

if TYPE_CHECKING:
    from offline_vi.study.demo import DemoOptions

MUJOCO, PENDULUM = "offline-vi/halfcheetah/medium-expert-v0", "offline-vi/pendulum/mixed-v0"


def main(arguments: list[str] | None = None) -> None:
    dataset = MUJOCO if importlib.util.find_spec("mujoco") else PENDULUM
    parser = argparse.ArgumentParser(
        prog="offline-vi demo",
        description="Collect a data set on the spot, fit a conditional VAE to its actions, train BCQ on the frozen "
        f"model, score the policy. Minutes on two cores, without a network. Without MuJoCo it is {PENDULUM}.",
    )
    parser.add_argument("--dataset", default=dataset, help="name or file (default: %(default)s)")
    parser.add_argument("--output", default="runs/demo", help="run directory (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5_000, help="gradient steps of BCQ (default: %(default)s)")
    parser.add_argument("--behavior-steps", type=int, default=5_000, help="of the CVAE (default: %(default)s)")
    options = parser.parse_args(arguments)
    from offline_vi.study.demo import DemoOptions

    chosen = DemoOptions(options.dataset, options.output, options.steps, options.behavior_steps)
    check_numbers(chosen)
    demonstrate(chosen)


def demonstrate(options: DemoOptions) -> None:
    """Data, model, policy, score, plot."""
    import torch  # here, not above: not for --help

    from offline_vi.scripts import train as train_verb
    from offline_vi.study.demo import EPISODES, compare_with_behavior, data_facts

    started = time.monotonic()
    print(f"1/3  data: {options.dataset}")
    data = data_facts(options.dataset)
    print(f"     {data.rows:,} transitions, {data.episodes} episodes, mean {data.measure} {data.score:.1f}")

    print(f"2/3  conditional VAE, {options.behavior_steps:,} steps, then BCQ on it, {options.steps:,} steps")
    train_verb.main(options.train_words())

    print("3/3  the same behavior model without BCQ, for comparison")
    scores = compare_with_behavior(options.output)
    print(f"\n     data {data.score:6.1f}   behavior model {scores.behavior:6.1f}   BCQ {scores.policy:6.1f}", end="")
    print(f"   ({data.measure}, {EPISODES} episodes)")
    print(f"     plot: {Path(options.output) / 'learning_curve.png'}")
    print(f"     {time.monotonic() - started:.0f} s on {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    main()
