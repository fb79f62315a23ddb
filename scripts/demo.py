"""offline-vi demo: what a data set's own policies score, next to clones, BCQ and the recommended preset."""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from offline_vi.ranges import check_numbers

if TYPE_CHECKING:
    from offline_vi.study.demo import DemoOptions

MUJOCO, PENDULUM = "offline-vi/hopper/medium-expert-v1", "offline-vi/pendulum/mixed-v0"


def main(arguments: list[str] | None = None) -> None:
    dataset = MUJOCO if importlib.util.find_spec("mujoco") else PENDULUM
    parser = argparse.ArgumentParser(
        prog="offline-vi demo",
        description="Collect a data set on the spot; train a clone of all of it, a clone of the best quarter of its "
        "episodes, BCQ as published and the recommended preset for about the same time; score and plot them. "
        f"Minutes on two cores, without a network. Without MuJoCo it is {PENDULUM}. Runs that are done are kept.",
    )
    parser.add_argument("--dataset", default=dataset, help="name or file (default: %(default)s)")
    parser.add_argument("--output", default="runs/demo", help="folder of runs and picture (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10_000, help="gradient steps of each clone (default: %(default)s)")
    parser.add_argument("--bcq-steps", type=int, default=1_500, help="of BCQ (default: %(default)s)")
    options = parser.parse_args(arguments)
    from offline_vi.study.demo import DemoOptions

    chosen = DemoOptions(options.dataset, options.output, options.steps, options.bcq_steps)
    check_numbers(chosen)
    demonstrate(chosen)


def demonstrate(options: DemoOptions) -> None:
    """Data, four policies, scores, picture."""
    from offline_vi.errors import StudyError
    from offline_vi.study.ahead import same_command_goes_on  # here and below: not for --help
    from offline_vi.study.cells import is_done, run_cells
    from offline_vi.study.demo import EPISODES, data_facts, picture, trained

    started = time.monotonic()
    print(f"1/3  data: {options.dataset}", flush=True)
    data = data_facts(options.dataset)
    print(f"     {data.rows:,} transitions, {data.episodes} episodes, mean {data.measure} {data.score:.1f}")

    contenders = options.contenders()
    cores = min(2, os.cpu_count() or 1)
    print(f"2/3  {len(contenders)} policies, {cores} at a time: {', '.join(contenders)}", flush=True)
    with same_command_goes_on("training the policies"):
        run_cells({path: words for path, words in contenders.values()}, jobs=cores)
    failed = [path.name for path, _ in contenders.values() if not is_done(path)]
    if failed:
        raise StudyError(f"{', '.join(failed)} did not come to an end", "see above why; the same command goes on")

    print(f"3/3  {data.measure}, {EPISODES} episodes, and its standard error")
    found = {name: trained(path) for name, (path, _) in contenders.items()}
    print(f"     {'the data':<26}{data.score:8.1f}")
    for name, one in found.items():
        print(f"     {name:<26}{one.score:8.1f} +- {one.error:4.1f}   {one.steps:,} steps in {one.seconds:.0f} s")
    picture(data, found, Path(options.output) / "demo.png")
    print(f"     plot: {Path(options.output) / 'demo.png'}\n     {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
