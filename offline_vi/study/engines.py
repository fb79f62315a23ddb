"""Where the cells of a study run: a pool of processes on this machine, or a Ray cluster. Both run the same cells."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from offline_vi.errors import MissingDependencyError, OfflineError, UsageError
from offline_vi.study.cells import Job, Outcome, inherited, run_job

Finished: TypeAlias = list[tuple[Job, Outcome]]
PlainJob: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...], tuple[tuple[str, str], ...], str]
"""A `Job` as plain values, in the order of its fields."""


class Engine(Protocol):
    """What runs jobs and returns their outcomes."""

    def submit(self, job: Job) -> None:
        """Run a job as soon as there is room."""

    def finished(self, timeout: float) -> Finished:
        """The jobs that ended since the last call, waiting up to ``timeout`` seconds for the first."""

    def stop(self) -> None:
        """Stop the running jobs after they write their checkpoints, and start no others."""


class LocalEngine:
    """``workers`` cells at once on this machine, each a process of its own: one that dies takes nothing with it."""

    def __init__(self, workers: int, journal: Path) -> None:
        self.pool, self.journal = ThreadPoolExecutor(workers), journal
        self.ended: queue.SimpleQueue[tuple[Job, Outcome]] = queue.SimpleQueue()
        self.processes: list[subprocess.Popen[str]] = []
        self.stopping = threading.Event()

    def submit(self, job: Job) -> None:
        try:
            self.pool.submit(self._run, job)
        except RuntimeError as error:  # no thread can be started
            self.ended.put((job, Outcome(False, str(error), 0.0)))

    def _run(self, job: Job) -> None:
        """Whatever happens in this thread is the outcome of its job: nobody would hear of an exception."""
        outcome = Outcome(False, "stopped", 0.0)
        try:
            if not self.stopping.is_set():
                outcome = run_job(job, self.journal, self._started)
        except BaseException as error:
            outcome = Outcome(False, f"it could not be run ({type(error).__name__}: {error})", 0.0)
        finally:
            self.ended.put((job, outcome))

    def _started(self, process: subprocess.Popen[str]) -> None:
        self.processes = [*(other for other in self.processes if other.poll() is None), process]
        if self.stopping.is_set():
            process.terminate()

    def finished(self, timeout: float) -> Finished:
        found: Finished = []
        with suppress(queue.Empty):
            found.append(self.ended.get(timeout=timeout))
            while True:
                found.append(self.ended.get_nowait())
        return found

    def stop(self) -> None:
        self.stopping.set()
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        self.pool.shutdown(wait=True, cancel_futures=True)


class RemoteTask(Protocol):
    """`on_ray` as Ray starts it."""

    def remote(self, job: PlainJob, journal: str) -> Hashable:
        """Start the job on the cluster. The reference that is returned gives its outcome later."""


class RayEngine:
    """The cells as tasks of a Ray cluster: a CPU and a share of a GPU each. Where a node dies, Ray starts its cells
    again elsewhere, and they go on from their checkpoints.

    The study's folder has to be on storage that every node sees at the same path and whose locks hold between nodes.
    """

    def __init__(self, options: RayOptions, journal: Path) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise MissingDependencyError("the engine ray needs Ray", "pip install 'offline-vi[ray]'") from error
        self.ray, self.journal = ray, journal
        try:
            ray.init(
                address=options.address or None,
                runtime_env={"env_vars": inherited()},
                log_to_driver=False,
                ignore_reinit_error=True,
                logging_level="warning",
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise OfflineError(
                f"no Ray cluster at {options.address!r} ({error})", "`ray start --head` makes one"
            ) from error
        limits = {"num_cpus": 1, "num_gpus": options.gpus, "max_retries": options.retries}
        self.task: RemoteTask = ray.remote(on_ray).options(**limits)
        self.running: dict[Hashable, Job] = {}

    def submit(self, job: Job) -> None:
        path, arguments, after, environment, folder = job
        plain = (str(path), arguments, tuple(map(str, after)), environment, folder)
        self.running[self.task.remote(plain, str(self.journal))] = job

    def finished(self, timeout: float) -> Finished:
        if not self.running:
            return []
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=timeout)
        return [(self.running.pop(reference), self._outcome(reference)) for reference in ready]

    def _outcome(self, reference: Hashable) -> Outcome:
        try:
            return Outcome(*self.ray.get(reference))
        except self.ray.exceptions.RayError as error:  # its node died more often than it may
            return Outcome(False, " ".join(str(error).split())[:300], 0.0)

    def stop(self) -> None:
        self.ray.shutdown()


def on_ray(plain: PlainJob, journal: str) -> tuple[bool, str, float]:
    """`run_job` for Ray, with plain values as arguments and result."""
    path, arguments, after, environment, folder = plain
    job = Job(Path(path), tuple(arguments), tuple(map(Path, after)), tuple(environment), folder)
    done, error, seconds = run_job(job, Path(journal))
    return done, error, seconds


@dataclass(frozen=True)
class LocalOptions:
    """Processes on this machine."""

    jobs: int = 2  # cells at once, one thread each

    def __post_init__(self) -> None:
        """Raises UsageError for less than one job."""
        if self.jobs < 1:
            raise UsageError(f"{self.jobs} jobs at once: one job is the least", "--jobs 1")

    def start(self, journal: Path) -> Engine:
        """Start the engine; ``journal`` is the CSV file with a row per process."""
        return LocalEngine(self.jobs, journal)


@dataclass(frozen=True)
class RayOptions:
    """Tasks of a Ray cluster."""

    address: str = ""  # e.g. auto or ray://HOST:10001; empty: one on this machine
    gpus: float = 0.0  # of one GPU, the share that a cell is given
    retries: int = 3  # how often a cell is started again because its node died

    def __post_init__(self) -> None:
        """Raises UsageError for negative numbers."""
        if self.gpus < 0.0 or self.retries < 0:
            raise UsageError(f"{self.gpus} GPUs, {self.retries} retries: neither can be negative", "leave both out")

    def start(self, journal: Path) -> Engine:
        """Start the engine. Raises MissingDependencyError without Ray, and OfflineError without a cluster."""
        return RayEngine(self, journal)


EngineOptions: TypeAlias = LocalOptions | RayOptions
