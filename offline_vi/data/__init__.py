"""Data sets in memory and the sources of batches. A data set only yields batches."""

from __future__ import annotations

from offline_vi.data.columns import (
    ActionRange as ActionRange,
    Columns as Columns,
    IntArray as IntArray,
    OnNonfinite as OnNonfinite,
    RowMode as RowMode,
    check_choice as check_choice,
    finite_episodes as finite_episodes,
    read_columns as read_columns,
    warn as warn,
    warn_of_double_ends as warn_of_double_ends,
)
from offline_vi.data.frames import Frames as Frames, SequenceSampler as SequenceSampler
from offline_vi.data.replay import Replay as Replay
from offline_vi.data.samplers import (
    Sampler as Sampler,
    Source as Source,
    StackedSampler as StackedSampler,
    columns_on as columns_on,
)
from offline_vi.data.transitions import Provenance as Provenance, Transitions as Transitions, concatenate as concatenate
