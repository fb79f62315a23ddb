"""offline-vi export RUN: write the policy of a run to one file that runs without this library."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from offline_vi.scripts.arguments import parsed


@dataclass(frozen=True)
class ExportOptions:
    """Write the final policy of a run to one file: observations in, actions in the environment's units out.

    The file is loaded in a process that cannot import this library and compared with the policy on 1,000 observations
    before it is kept. What was measured is printed, and written to a card next to the file.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory of `offline-vi train`."""
    to: Literal["torch", "onnx", "torchscript"] = "torch"
    """torch: torch.export's archive (.pt2); onnx (.onnx, needs the extra 'export'); torchscript (.ts)."""
    output: str = ""
    """File to write; default: RUN/policy.pt2, RUN/policy.onnx or RUN/policy.ts."""
    guard: float = 0.0
    """Include the guard of actions, at this quantile of the data's log-density (0.001, 0.01, 0.05, 0.5); 0: no
    guard."""
    guard_states: float = 0.0
    """Include the guard of states that `offline-vi fit-guard` fitted, at this quantile (0.001, 0.01, 0.05, 0.5); 0: no
    guard."""
    safe_action: tuple[float, ...] = ()
    """The action that the file returns in unknown states instead of the middle of the box, in the environment's units:
    one number for each dimension."""
    seed_index: int = 0
    """Which seed to export, of a run that trained several in parallel (--parallel-seeds), counted from 0."""
    overwrite: bool = False
    """Replace the file if it exists."""
    json: bool = False
    """Print the card as JSON on stdout."""


def main(arguments: list[str] | None = None) -> None:
    options = parsed(ExportOptions, arguments, "offline-vi export")
    from offline_vi.runs.files import read_json  # here and below: not for --help
    from offline_vi.study.export import export_run

    done = export_run(
        options.run,
        options.to,
        options.output,
        seed_index=options.seed_index,
        guard=options.guard,
        guard_states=options.guard_states,
        safe_action=options.safe_action,
        overwrite=options.overwrite,
    )
    if options.json:
        json.dump(read_json(done.card), sys.stdout, indent=1)
        print()
        return
    trial = done.trial
    print(f"{done.path}")
    print(f"  compared on {trial.rows:,} rows: actions differ by at most {trial.difference:.1e} of half the action box")
    print(f"  one row on one core: {trial.milliseconds:.2f} ms (median), {trial.fastest:.2f} ms (fastest)")
    print(f"  card: {done.card}")


if __name__ == "__main__":
    main()
