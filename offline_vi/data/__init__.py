"""Data sets in memory and the sources of batches. A data set only yields batches."""

from __future__ import annotations

from offline_vi.data.checks import check_columns as check_columns
from offline_vi.data.columns import (
    ActionRange as ActionRange,
    Columns as Columns,
    DiscreteActions as DiscreteActions,
    IntArray as IntArray,
    NextObs as NextObs,
    OnNonfinite as OnNonfinite,
    RowMode as RowMode,
    check_choice as check_choice,
    converted as converted,
    next_obs_of as next_obs_of,
    warn as warn,
)
from offline_vi.data.frames import Frames as Frames, SequenceSampler as SequenceSampler
from offline_vi.data.provenance import ColumnOptions as ColumnOptions, Provenance as Provenance
from offline_vi.data.replay import Replay as Replay
from offline_vi.data.report import DataReport as DataReport
from offline_vi.data.rows import (
    Rows as Rows,
    following_rows as following_rows,
    library_actions as library_actions,
    rows_within_episodes as rows_within_episodes,
)
from offline_vi.data.samplers import (
    Sampler as Sampler,
    Source as Source,
    StackedSampler as StackedSampler,
    columns_on as columns_on,
)
from offline_vi.data.tables import Roles as Roles, Table as Table
from offline_vi.data.transitions import Transitions as Transitions, concatenate as concatenate
from offline_vi.data.weights import (
    Advantages as Advantages,
    Best as Best,
    Returns as Returns,
    Rule as Rule,
    effective_rows as effective_rows,
    weighted as weighted,
)
