"""offline-vi demo: the main job, small enough to watch: data, behaviour model, BCQ, score, plot."""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

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
    demonstrate(parser.parse_args(arguments))


def demonstrate(options: argparse.Namespace) -> None:
    """Data, model, policy, score, plot."""
    import torch  # here and below: not for --help

    from offline_vi import datasets
    from offline_vi.algorithms.build import load
    from offline_vi.evaluation.evaluate import evaluate
    from offline_vi.rl.policies import BehaviorPolicy
    from offline_vi.scripts import train as train_verb

    started = time.monotonic()

    print(f"1/3  data: {options.dataset}")
    data = datasets.load(options.dataset)
    assert data.task is not None
    returns = data.episode_returns()
    print(f"     {len(data):,} transitions, {len(returns)} episodes, ", end="")
    print(f"mean normalised score {data.task.normalized(returns).mean():.1f}")

    print(f"2/3  conditional VAE, {options.behavior_steps:,} steps, then BCQ on it, {options.steps:,} steps")
    flags = ["--dataset", options.dataset, "--preset", "fast", "--behavior", "cvae"]
    flags += ["--behavior-steps", str(options.behavior_steps)]
    flags += ["--steps", str(options.steps), "--eval-every", str(max(options.steps // 5, 1)), "--overwrite"]
    flags += ["--output", options.output, "--behavior.hidden", "256", "256", "--hidden", "256", "256"]
    train_verb.main(["bcq", *flags])

    print("3/3  the same behaviour model without BCQ, beside it")
    policy = load(options.output)
    model = policy.behavior.model  # type: ignore[union-attr]
    cloned = evaluate(BehaviorPolicy(model), data.task, episodes=10, seed=100)  # type: ignore[arg-type]
    improved = evaluate(policy, data.task, episodes=10, seed=100)  # type: ignore[arg-type]
    print(f"\n     data {data.task.normalized(returns).mean():6.1f}   behaviour model {cloned.mean:6.1f}", end="")
    print(f"   BCQ {improved.mean:6.1f}   (normalised score, 10 episodes)")
    print(f"     plot: {Path(options.output) / 'learning_curve.png'}")
    print(f"     {time.monotonic() - started:.0f} s on {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    main()
