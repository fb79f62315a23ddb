"""What the studies here share beyond `offline_vi.study.cells`: running what is left, and tables with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

from offline_vi.study.cells import Job, is_done, run_job


def interval(values: Sequence[float]) -> str:
    """Mean with the 95 % Student interval over runs."""
    if len(values) < 2:
        return f"{values[0]:.1f} (1 run)"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.1f} +- {half:.1f} ({len(values)} runs)"


def run_all(jobs: Iterable[Job]) -> None:
    """Run one after the other those that are not done."""
    for job in jobs:
        if not is_done(job.path):
            outcome = run_job(job)
            print(f"{job.path.name}: {f'{outcome.seconds:.0f} s' if outcome.done else outcome.error}", flush=True)


def table(rows: Sequence[dict[str, str]]) -> str:
    """Markdown; a column that a row lacks is empty."""
    head = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row.get(name, '') for name in head)} |" for row in rows)]) + "\n"
