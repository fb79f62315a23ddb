"""Writing any data set as a Minari data set or as an HDF5 file in D4RL's layout, in physical units and without loss."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import gymnasium
import h5py
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer

from offline_vi import datasets
from offline_vi.data.checks import check_columns
from offline_vi.data.columns import LOG_PROB_KEY, warn
from offline_vi.data.rows import following_rows, rows_within_episodes
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import local, minari, recipes
from offline_vi.datasets.d4rl import BOUNDS
from offline_vi.datasets.finding import HDF5
from offline_vi.datasets.reading import Reading
from offline_vi.environments import close, make_env
from offline_vi.errors import DatasetFormatError, DataWarning, OfflineVIError, UsageError, counted
from offline_vi.homes import expanded
from offline_vi.runs.files import temporary_name
from offline_vi.types import FloatArray, Task

ROWS = ("obs", "reward", "next_obs", "terminated", "episode_end")


class Physical(NamedTuple):
    """Transitions, and what they hold in the units of the environment."""

    data: Transitions
    action: FloatArray  # (R, A)
    log_prob: FloatArray | None  # (R,) in nats, of ``action``
    task: Task  # whose bounds map ``action`` to that of ``data``


def convert(source: str, target: str, reading: Reading) -> Path:
    """Write a data set, read with the options of ``reading``, under a new name; returns where it lies.

    ``target`` is a file that ends in .hdf5, or a name of Minari's: NAME-v0. The action bounds are kept: as the action
    space, or as attributes of the file, which `load` understands. Read as "within_episode", the new data set has the
    same transitions, bit for bit, which is verified.

    Raises UsageError (the target exists or is neither), DatasetFormatError (next observations that Minari cannot hold),
    and what `load` raises.
    """
    is_file = Path(target).suffix in HDF5
    if not is_file and not local.NAME.fullmatch(target):
        raise UsageError(f"{target} is no data set to write", "a file, FILE.hdf5, or a name of Minari's, NAME-v0")
    place = expanded(target) if is_file else minari.folder_of(target)
    if place.exists():
        raise UsageError(f"{place} exists", "choose another name, or remove it")
    physical = _physical(source, reading)
    if is_file:
        _write_hdf5(place, physical)
    else:
        _write_minari(target, physical)
    _verify(target, physical)
    return place


def _physical(source: str, reading: Reading) -> Physical:
    columns, task, where = datasets.read(source, reading=reading)
    limit = datasets.episode_limit(task, reading) if columns.timeout is None else None
    columns = check_columns(
        columns,
        where.name,
        next_obs=where.next_obs,
        on_nonfinite=reading.on_nonfinite,
        discrete_actions=reading.discrete_actions,
        max_episode_steps=limit,
    ).columns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the first check has said it
        data = Transitions.from_columns(
            columns,
            next_obs=where.next_obs,
            task=task,
            action_range=reading.action_range,
            discrete_actions="continuous",  # the first check has asked
            source=where,
        )
    kept = (following_rows if where.next_obs == "following_row" else rows_within_episodes)(columns).kept
    log_prob = None if columns.log_prob is None or data.behavior_log_prob is None else columns.log_prob[kept]
    ones = (1.0,) * data.spec.action_dim
    units = data.task or Task("", tuple(-one for one in ones), ones)
    action = columns.action[kept]
    if reading.action_range == "clip":
        inside = np.clip(action, *(np.array(getattr(units, bound), action.dtype) for bound in BOUNDS))
        if cut := np.count_nonzero(inside != action):
            warn(f"{where.name}: clipped {cut} of {action.size} action entries to their bounds")
        action = inside
    return Physical(data, action, log_prob, units)


def _write_hdf5(path: Path, physical: Physical) -> None:
    """The layout of D4RL, the bounds as attributes of the file; whole or not at all."""
    data = physical.data
    arrays = {
        "observations": data.obs,
        "actions": physical.action,
        "rewards": data.reward,
        "terminals": data.terminated,
        "timeouts": data.episode_end & ~data.terminated,
        "next_observations": data.next_obs,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path.parent)
    try:
        with h5py.File(temporary, "w") as file:
            for key, values in arrays.items():
                file[key] = values
            if physical.log_prob is not None:
                file[LOG_PROB_KEY] = physical.log_prob
            for name in BOUNDS:
                file.attrs[name] = np.array(getattr(physical.task, name), np.float64)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_minari(name: str, physical: Physical) -> None:
    """T + 1 observations an episode. Raises DatasetFormatError where next observations are not the following row's."""
    data = physical.data
    apart = (data.next_obs[:-1] != data.obs[1:]).any(1) & ~data.episode_end[:-1]
    if apart.any():
        raise DatasetFormatError(
            f"{data.source.name}: {counted(int(apart.sum()), 'row')} whose next observation is not that of the "
            f"following row, first row {int(apart.argmax())}: Minari has no place for it",
            "convert it to a file: FILE.hdf5",
        )
    low, high = (np.array(getattr(physical.task, bound), np.float64) for bound in BOUNDS)
    recipes.write(
        name,
        [_episode(physical, number, rows) for number, rows in enumerate(data.episode_slices())],
        _environment(physical),
        physical.task.ref_min,
        physical.task.ref_max,
        f"converted from {data.source.name}",
        "unknown",
        gymnasium.spaces.Box(-np.inf, np.inf, data.spec.obs_shape, np.float32),
        gymnasium.spaces.Box(low, high, dtype=np.float64),
    )


def _episode(physical: Physical, number: int, rows: slice) -> EpisodeBuffer:
    data, log_prob = physical.data, physical.log_prob
    terminated = data.terminated[rows]
    truncated = np.append(np.zeros(len(terminated) - 1, np.bool_), not terminated[-1])
    return EpisodeBuffer(
        id=number,
        observations=[*data.obs[rows], data.next_obs[rows][-1]],
        actions=list(physical.action[rows]),
        rewards=[float(reward) for reward in data.reward[rows]],
        terminations=terminated.tolist(),
        truncations=truncated.tolist(),
        infos=None if log_prob is None else {"action_log_probs": np.append(log_prob[rows], np.float32(0.0))},
    )


def _environment(physical: Physical) -> EnvSpec | None:
    """The task's environment, where it is on this machine and has the observations and the box of the data."""
    task = physical.task
    if not task.env_id:
        return None
    try:
        env = make_env(task)
    except OfflineVIError:
        return None
    close(env)
    seen, box = env.observation_space, env.action_space
    if not isinstance(box, gymnasium.spaces.Box) or seen.shape != physical.data.spec.obs_shape:
        return None
    same = np.array_equal(box.low, task.action_low) and np.array_equal(box.high, task.action_high)
    return recipes.specified(task) if same else None


def _verify(target: str, physical: Physical) -> None:
    """Read it back: everything is bit for bit the same. Actions of a plug-in that returned `Transitions` may differ by
    rounding, since they come from [-1, 1]; that is reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        again = datasets.load(target, reading=Reading(next_obs="within_episode"))
    data = physical.data
    wrong = [name for name in ROWS if not np.array_equal(getattr(again, name), getattr(data, name))]
    log_probs = [found.behavior_log_prob for found in (again, data)]
    if log_probs[0] is not None and log_probs[1] is not None:
        assert np.array_equal(log_probs[0], log_probs[1]), f"{target}: log-probabilities differ"
    assert not wrong and (log_probs[0] is None) == (log_probs[1] is None), f"{target}: {wrong} differ"
    moved = np.abs(again.action - data.action)
    if moved.any():
        warn(f"{target}: {np.count_nonzero(moved)} action entries moved by rounding, at most {moved.max():.3g}")
