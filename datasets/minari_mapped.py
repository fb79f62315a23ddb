"""Minari's sets that are larger than the memory budget: converted once, an episode at a time, and mapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from offline_vi.data.columns import Columns
from offline_vi.data.discrete import labels_in, refuse_labels
from offline_vi.data.steps import Steps
from offline_vi.data.transitions import Provenance, Transitions
from offline_vi.datasets import mapped
from offline_vi.datasets.minari import Described, hash_of
from offline_vi.datasets.minari_episodes import episodes_in, opened, read_episodes
from offline_vi.datasets.reading import Reading
from offline_vi.types import Task


def bytes_in_memory(found: Described) -> int:
    """What a set's transitions would take as float32, with their next observations, by its metadata."""
    obs, action = found.widths
    return 4 * found.steps * (2 * obs + action + 4)


def episodes_of(found: Described, max_bytes: int) -> Iterator[Columns]:
    """One episode after the other; raises what `read` raises."""
    with opened(found.folder, found.kind, max_bytes) as storage:
        numbers = episodes_in(storage, found.total, "error")
        for episode in read_episodes(storage, numbers, found.obs_keys, found.widths, "error"):
            yield Columns(**episode)


def load_mapped(found: Described, task: Task | None, sha256: str | None, reading: Reading) -> Transitions:
    """The transitions of a set that is larger than the memory budget, mapped from the cache; in messages about values,
    rows count from the beginning of an episode. Raises DatasetTooLargeError for options that need all rows at once."""
    mapped.refuse_what_takes_all_rows(reading, found.name)
    with opened(found.folder, found.kind, reading.max_dataset_bytes) as storage:
        source = Provenance(found.name, (str(storage.path),), (hash_of(storage, sha256),), "within_episode")

    def convert(folder: Path) -> None:
        if reading.discrete_actions == "error":
            refuse_labels((episode.action for episode in episodes_of(found, reading.max_dataset_bytes)), found.name)
        count = sum(len(episode.reward) for episode in episodes_of(found, reading.max_dataset_bytes))
        mapped.write_rows(folder, count, _parts(found, task, reading))

    return mapped.map_rows(convert, source, task, reading)


def _parts(found: Described, task: Task | None, reading: Reading) -> Iterator[Transitions]:
    for number, episode in enumerate(episodes_of(found, reading.max_dataset_bytes)):
        yield Transitions.from_columns(
            episode,
            next_obs="within_episode",
            task=task,
            action_range=reading.action_range,
            discrete_actions="continuous",
            source=Provenance(f"{found.name} (episode {number:,})"),
        )


def steps_of(found: Described, reading: Reading) -> Steps:
    """The rows of a set that is mapped, without its matrices."""
    labels = labels_in(episode.action for episode in episodes_of(found, reading.max_dataset_bytes))
    rows = [
        (episode.reward, episode.terminal.astype(np.bool_), episode.cut, episode.log_prob is not None)
        for episode in episodes_of(found, reading.max_dataset_bytes)
    ]
    reward, terminal, timeout = (np.concatenate([row[number] for row in rows]) for number in range(3))
    every = np.ones(len(reward), np.bool_)
    return Steps(reward, terminal, timeout, timeout, every, every, True, all(row[3] for row in rows), labels)
