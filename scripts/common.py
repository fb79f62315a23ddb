"""What the training verbs share: options of a run, where it is written, what is recorded about it."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from offline_vi import datasets
from offline_vi.data.transitions import Transitions
from offline_vi.environments import check_spaces
from offline_vi.errors import ConfigError, NoCheckpointError, OfflineVIError, OutOfMemoryError, UsageError
from offline_vi.nn.precision import differences, facts, use_products
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import read_json
from offline_vi.scripts.info import versions
from offline_vi.study.sinks import check_sinks, listeners

SCHEMA = 1  # of config.json


@dataclass(frozen=True)
class DataOptions:
    """Which data, read how."""

    dataset: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME|FILE ...")] = ()
    """D4RL, Minari or offline-vi names, or .hdf5 files; several are each read alone and then joined."""
    env: str = ""
    """Gymnasium id to score on, where the data set's name does not tell."""
    rows: Literal["d4rl", "strict"] = "d4rl"
    """d4rl: the rows of D4RL's qlearning_dataset; strict: never cross an episode, keep rows cut by time."""
    action_range: Literal["error", "clip", "data"] = "error"
    """Actions outside [-1, 1]: refuse, clip, or map the data's range to [-1, 1]."""
    on_nonfinite: Literal["error", "drop-episode"] = "error"
    """NaN or infinity in the data: refuse, or drop the episodes that hold them."""
    memory_budget: int = 0
    """Bytes that the rows of a file may take; larger ones are mapped from the cache. 0: half of the memory."""

    def load(self) -> Transitions:
        if not self.dataset:
            raise UsageError(
                "no data set is given", "add --dataset NAME or --dataset FILE.hdf5; `offline-vi data list`"
            )
        return datasets.load(
            *self.dataset,
            rows=self.rows,
            action_range=self.action_range,
            on_nonfinite=self.on_nonfinite,
            env=self.env or None,
            memory_budget=self.memory_budget or None,
        )


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is made."""

    output: str = ""
    """Run directory; default runs/ALGORITHM-DATASET-seedN."""
    seed: int = 0
    """One seed for initialisation, batches and noise."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
    threads: int = 1
    """CPU threads of torch; the bits of a result depend on it."""
    log_every: int = 1_000
    """Steps between two rows of metrics.csv."""
    save_every: int = 5_000
    """Steps between two checkpoints."""
    log: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ("csv",)
    """Where numbers go besides the run's own CSV files, which are written in any case."""
    resume: bool = False
    """Continue the run in --output from its newest checkpoint."""
    overwrite: bool = False
    """Replace the run in --output."""
    strict: bool = False
    """Refuse to --resume where threads, device or versions changed, so that the bits would differ."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """No progress on stderr."""
    json: bool = False
    """Print the result as JSON on stdout."""

    def torch_device(self) -> torch.device:
        """Raises ConfigError for a device that is not there."""
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError):
            raise ConfigError(f"device {name!r} is not available", "use --device cpu") from None
        return device


def check_task(data: Transitions) -> None:
    """Observation and action spaces of data and environment, before the first gradient step."""
    if data.task is not None and data.task.env_id:
        check_spaces(data.spec, data.task)


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def open_run(options: RunOptions, default: str, config: dict[str, Any]) -> tuple[RunDirectory, bool]:
    """The run directory, locked, and whether there is a checkpoint to resume from.

    Raises ConfigError where the run to resume was made with another configuration, or, with --strict, on another
    machine.
    """
    check_sinks(options.log)
    path = Path(options.output or Path("runs") / default)
    if not options.resume:
        run = RunDirectory.create(path, overwrite=options.overwrite)
        run.write_json("config.json", config)
        run.listeners += listeners(options.log, path, config, first_step=0)
        return run, False
    run = RunDirectory.resume(path)
    if not (run.has_checkpoint() or (path / "config.json").exists()):  # it died before it had begun
        run.write_json("config.json", config)
    before, config = run.read_json("config.json"), json.loads(json.dumps(config))  # tuples become lists
    for name in ("recipe", "data", "steps", "seed", "collection"):
        if without_empty(before.get(name)) != without_empty(config.get(name)):
            run.close()
            raise ConfigError(
                f"{path} was made with another {name}", "resume with the flags of the run, or --overwrite"
            )
    step, changed = -1, ""
    with suppress(NoCheckpointError):
        checkpoint = run.latest()
        step = checkpoint.step
        changed = differences(checkpoint.state.get("machine", {}), facts(options.torch_device()))
    if options.strict and changed:
        run.close()
        raise ConfigError(f"{path} would go on with {changed}", "give it what it had, or leave --strict out")
    run.listeners += listeners(options.log, path, config, first_step=step + 1)
    return run, step >= 0


def without_empty(record: Any) -> Any:
    """The record without what is empty at any depth: a field that an older version did not have, and that is not used,
    is no difference."""
    if isinstance(record, dict):
        kept = {name: without_empty(value) for name, value in record.items()}
        return {name: value for name, value in kept.items() if value not in (None, "", [], {}, False)}
    return record


@contextmanager
def recorded(run: RunDirectory, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep run.json truthful: running, then done or failed, with timings; memory exhaustion becomes one line."""
    started = time.time()
    record |= {
        "status": "running",
        "versions": versions(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "git_revision": git_revision(),
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
    }
    run.write_json("run.json", record)
    try:
        yield record
        record["status"] = "done"
    except (torch.OutOfMemoryError, MemoryError) as error:
        record |= {"status": "failed", "error": str(error)}
        raise OutOfMemoryError("memory ran out", "lower --batch-size, or use --device cpu") from error
    except BaseException as error:
        record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        if not isinstance(error, OfflineVIError | KeyboardInterrupt):
            (run.path / "crash.txt").write_text(traceback.format_exc())
        raise
    finally:
        record["products"] = torch.get_float32_matmul_precision()
        record["wall_seconds"] = round(time.time() - started, 1)
        run.write_json("run.json", record)


def multiply_as(run: str | Path) -> None:
    """Take the path of matrix products that the run took: the same policy then earns the same score to the last bit."""
    record = read_json(Path(run) / "run.json")
    use_products("medium" if record.get("products") == "medium" else "highest")


def git_revision() -> str:
    """Of the checkout that the package lies in; empty where there is none."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def fingerprint(data: Transitions) -> str:
    """SHA-256 over the rows that training sees: what "the same data" means for --resume."""
    digest = hashlib.sha256()
    for column in (data.obs, data.action, data.reward, data.next_obs, data.terminated):
        digest.update(np.ascontiguousarray(column).data)  # no copy: it may be mapped
    return digest.hexdigest()


def data_record(data: Transitions) -> dict[str, Any]:
    """What config.json says about the data."""
    return {
        "name": data.source.name,
        "sha256": list(data.source.sha256),
        "rows": data.source.rows,
        "fingerprint": fingerprint(data),
    }
