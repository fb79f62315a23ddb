"""How data are read: every option once. The command, suites and `load` take their fields from here.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

from offline_vi.errors import UsageError

if TYPE_CHECKING:
    from offline_vi.data.columns import Columns
    from offline_vi.data.transitions import Provenance
    from offline_vi.types import Task

NextObs = Literal["following_row", "within_episode"]
ActionRange = Literal["error", "clip", "data"]
OnNonfinite = Literal["error", "drop-episode"]


@dataclass(frozen=True)
class Reading:
    """How data are read."""

    next_obs: NextObs = "following_row"
    """Next observations: of the following row, as in D4RL's qlearning_dataset; or those of the same episode alone, so
    that steps cut by time are kept. Minari's sets hold them all."""
    action_range: ActionRange = "error"
    """Actions outside the bounds: refuse, clip, or map the data's range to [-1, 1]."""
    on_nonfinite: OnNonfinite = "error"
    """NaN or infinity in the data: refuse, or drop the episodes that hold them."""
    columns: str = ""
    """TOML file that says what the columns of a table (.csv, .tsv, .parquet) are."""
    env: str = ""
    """Gymnasium id to score on, where the data set's name does not tell; its box gives the action bounds."""
    action_low: tuple[float, ...] = ()
    """Smallest actions in the data's units, one for all or one for each; for data without an environment."""
    action_high: tuple[float, ...] = ()
    """Largest actions in the data's units, one for all or one for each; for data without an environment."""
    max_episode_steps: int = 0
    """Steps after which an episode was cut, where a file has no timeouts; 0: the environment's own limit."""
    max_dataset_bytes: int = 32 << 30
    """Bytes that a file may declare; one that declares more is refused before it is read."""
    memory_budget: int = 0
    """Bytes that the rows of a file may take; larger ones are mapped from the cache. 0: half of the memory."""
    sha256: tuple[str, ...] = ()
    """Expected SHA-256 of each file; those of D4RL's names are known."""
    download: bool = False
    """Fetch what is not on this machine."""

    def hashes(self, sources: int) -> list[str | None]:
        """The expected hash of each of so many files. Raises UsageError where there are others than one for each."""
        if not self.sha256:
            return [None] * sources
        if len(self.sha256) != sources:
            raise UsageError(f"{len(self.sha256)} hashes for {sources} data sets", "give one for each")
        return list(self.sha256)


class ReadingOptions(TypedDict, total=False):
    """The fields of `Reading` as keyword arguments of `load`; None is the default."""

    next_obs: NextObs
    action_range: ActionRange
    on_nonfinite: OnNonfinite
    columns: str | Path | None
    env: str | None
    action_low: Sequence[float] | float
    action_high: Sequence[float] | float
    max_episode_steps: int | None
    max_dataset_bytes: int
    memory_budget: int | None
    sha256: str | Sequence[str] | None
    download: bool
    rows: Literal["d4rl", "strict"]  # the former name of next_obs


NAMES = tuple(field.name for field in fields(Reading))


def reading_from(reading: Reading, options: ReadingOptions) -> Reading:
    """``reading`` with some options replaced. Raises UsageError for an unknown value of the former ``rows``."""
    given: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    if "rows" in given:
        from offline_vi.data.columns import next_obs_of

        given["next_obs"] = next_obs_of(str(given.pop("rows")), stacklevel=4)
    if "columns" in given:
        given["columns"] = str(given["columns"])
    for name in ("action_low", "action_high", "sha256"):
        value = given.get(name)
        if isinstance(value, str | int | float):
            given[name] = (value,)
        elif isinstance(value, Sequence):
            given[name] = tuple(value)
    return replace(reading, **given)  # type: ignore[arg-type]


class Read(NamedTuple):
    """What a reader returns of one data set, before values are checked."""

    columns: Columns
    task: Task | None
    source: Provenance
