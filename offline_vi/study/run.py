"""The directory of an experiment: where it is, what is recorded about it, whether it may go on."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from offline_vi import registry
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError, EnvError, Interrupted, NoCheckpointError, OfflineVIError, memory_error
from offline_vi.nn.description import class_named, classes_in
from offline_vi.nn.precision import differences, facts
from offline_vi.plugins import source_of
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import write_text
from offline_vi.stopping import Stop, held, listening
from offline_vi.study.resumption import Change, recorded_changes, with_changes
from offline_vi.study.sinks import check_sinks, listeners
from offline_vi.study.versions import git_revision, versions

SCHEMA = 2  # of config.json
SIMULATORS = ("gymnasium", "mujoco")
Record = dict[str, Any]
"""A JSON object."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run is kept, and how it is made."""

    output: str = ""
    """Run directory; default: runs/ALGORITHM-DATASET-PRESET-MODEL-seedN."""
    seed: int = 0
    """One seed for initialization, batches and noise."""
    device: str = "auto"
    """Device of torch: auto, cpu, cuda or cuda:N."""
    threads: int = 1
    """CPU threads of torch. The bits of a result depend on their number."""
    graph: Literal["off", "compiled", "replayed", "auto"] = "off"
    """off: updates run as they are written; compiled: as one program, made in 10 to 40 s and up to 1.4 times as fast;
    replayed: as a CUDA graph; auto: what pays for so many steps on this machine."""
    log_every: int = 1_000
    """Steps between two rows of metrics.csv."""
    save_every: int = 5_000
    """Steps between two checkpoints."""
    log: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ("csv",)
    """Where numbers go in addition to the run's own CSV files, which are always written."""
    resume: bool = False
    """Continue the run in --output from its newest checkpoint (`offline-vi resume RUN` needs no other flag)."""
    overwrite: bool = False
    """Replace the run in --output."""
    strict: bool = False
    """Refuse to --resume if threads, device or versions changed, because the bits would differ."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Show no progress on stderr."""
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

    def recorded(self) -> Record:
        """What config.json keeps: how the run was made, not where or whether anew."""
        kept = ("seed", "device", "threads", "graph", "log_every", "save_every", "log", "strict", "quiet", "json")
        return {name: getattr(self, name) for name in kept}


def open_run(options: RunOptions, default: str, config: Record, *, extends: bool = False) -> tuple[RunDirectory, bool]:
    """The run directory, locked, and whether there is a checkpoint to resume from.

    A run that goes on does what it did: its ``config.json`` is compared with ``config`` (`resumption`), and says what
    has changed since which step. With ``extends`` it may take more steps.

    Raises ConfigError where they differ, naming the field and both values, or, with --strict, where the machine does.
    """
    check_sinks(options.log)
    path = Path(options.output or Path("runs") / default)
    if not options.resume:
        run = RunDirectory.create(path, overwrite=options.overwrite)
        run.write_json("config.json", config)
        run.listeners += listeners(options.log, path, config, first_step=0)
        return run, False
    run = RunDirectory.resume(path)
    try:
        step = _check_unchanged(run, config, options, extends)
    except BaseException:
        run.close()
        raise
    run.listeners += listeners(options.log, path, config, first_step=step + 1)
    return run, step >= 0


def _check_unchanged(run: RunDirectory, config: Record, options: RunOptions, extends: bool) -> int:
    """The step of the checkpoint that the run goes on from, -1 without one. What may change is recorded with it."""
    if not (run.has_checkpoint() or (run.path / "config.json").exists()):  # it died before it had begun
        run.write_json("config.json", config)
    before, now = run.read_json("config.json"), json.loads(json.dumps(config))  # tuples become lists
    found = recorded_changes(run.path, before, now, extends=extends) + simulator_changes(run)
    step, changed = -1, ""
    with suppress(NoCheckpointError):
        checkpoint = run.latest()
        step, changed = checkpoint.step, differences(checkpoint.state.get("machine", {}), facts(options.torch_device()))
    if options.strict and changed:
        raise ConfigError(f"{run.path} would go on with {changed}", "give it what it had, or leave --strict out")
    after = with_steps(before, now["steps"]) if extends else before
    after = with_changes(after, found, max(step, 0)) if found else after
    if after != before:
        run.write_json("config.json", after)
    return step


def simulator_changes(run: RunDirectory) -> list[Change]:
    """The packages that simulate the environments and have changed since the run was last worked on."""
    record = run.read_json("run.json") if (run.path / "run.json").exists() else {}
    before, now = record.get("versions"), versions()
    before = before if isinstance(before, dict) else {}
    names = [name for name in SIMULATORS if before.get(name, now[name]) != now[name]]
    return [Change(f"versions.{name}", before[name], now[name]) for name in names]


def with_steps(saved: Record, steps: int) -> Record:
    """A configuration with another number of steps. Raises ConfigError where that is fewer than before."""
    before, agent = saved.get("steps"), saved.get("agent")
    if not isinstance(before, int):
        raise ConfigError("the configuration has no number of steps", "use a run's config.json")
    if steps < before:
        raise ConfigError(f"--steps {steps:,}: the run has {before:,} already", "give a larger number")
    changed = {**saved, "steps": steps}
    for name in ("train_options", "collect_options", "pixels_options", "fit_options"):
        section = changed.get(name)
        if isinstance(section, dict) and "steps" in section:
            changed[name] = {**section, "steps": steps}
    if isinstance(agent, dict) and agent.get("class") == "BehaviorFit":
        changed["agent"] = {**agent, "steps": steps}
    return changed


@contextmanager
def recorded(run: RunDirectory, record: Record) -> Iterator[Record]:
    """Keep run.json truthful: running, then done, interrupted or failed, with timings. Requests to stop are taken, and
    what ended the run is raised as the error that it stands for (`expected`)."""
    started = time.monotonic()
    record |= {
        "status": "running",
        "versions": versions(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "git_revision": git_revision(),
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with listening():
        run.write_json("run.json", record)
        try:
            yield record
            record["status"] = "done"
        except BaseException as error:
            reason = expected(error, run)
            stopped = isinstance(reason, Interrupted | KeyboardInterrupt)
            record |= {"status": "interrupted" if stopped else "failed", "error": f"{type(reason).__name__}: {reason}"}
            if not isinstance(reason, OfflineVIError | KeyboardInterrupt):
                with suppress(OfflineVIError):
                    write_text(run.path / "crash.txt", traceback.format_exc())
            if reason is error:
                raise
            raise reason from error
        finally:
            with held():
                record["products"] = torch.get_float32_matmul_precision()
                record["wall_seconds"] = round(time.monotonic() - started, 1)
                run.write_json("run.json", record)


def expected(error: BaseException, run: RunDirectory) -> BaseException:
    """The error of ours that another one stands for; itself where there is none."""
    if isinstance(error, Stop):
        return Interrupted(error.signum, saved=run.newest_step())
    if isinstance(error, SystemExit):
        return EnvError(
            f"something in the run ended the program: sys.exit({error.code!r})", "an environment, or a plug-in"
        )
    return memory_error(error) or error


def plugins_used(agent: Record) -> list[Record]:
    """The plug-ins of this process, and the files of classes of others that an agent consists of, for config.json."""
    sources = [source_of(class_named(name)) for name in classes_in(agent)]
    used = dict.fromkeys([*registry.PLUGINS.values(), *(source for source in sources if source is not None)])
    return [plugin._asdict() for plugin in used]


def missing_plugin(record: Mapping[str, Any]) -> str:
    """The first plug-in of a configuration that is not loaded, or has changed since; empty where none is missing."""
    loaded = {plugin.sha256 for plugin in registry.PLUGINS.values()}
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main is not None and Path(main).is_file():
        loaded.add(hashlib.sha256(Path(main).read_bytes()).hexdigest())
    plugins = record.get("plugins")
    entries = [entry for entry in plugins if isinstance(entry, dict)] if isinstance(plugins, list) else []
    names = [str(entry.get("name")) for entry in entries if str(entry.get("sha256")) not in loaded]
    return next((name for name in names if name not in sys.modules), "")


def fingerprint(data: Transitions) -> str:
    """SHA-256 over the rows that training sees: what "the same data" means for --resume."""
    digest = hashlib.sha256()
    for column in (data.obs, data.action, data.reward, data.next_obs, data.terminated):
        digest.update(np.ascontiguousarray(column).data)  # no copy: it may be mapped
    return digest.hexdigest()


def data_record(data: Transitions) -> Record:
    """What config.json says about the data."""
    names = {"obs_names": list(data.source.obs_names), "action_names": list(data.source.action_names)}
    return {
        "name": data.source.name,
        "sha256": list(data.source.sha256),
        "next_obs": data.source.next_obs,
        "fingerprint": fingerprint(data),
        **(names if data.source.obs_names else {}),
    }
