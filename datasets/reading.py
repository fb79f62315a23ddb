"""How data are read: every option once. The command, suites and `load` take their fields from here.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from offline_vi import factories
from offline_vi.errors import UsageError
from offline_vi.factories import Factory

if TYPE_CHECKING:
    from offline_vi.data.columns import Columns
    from offline_vi.data.transitions import Provenance
    from offline_vi.types import Task

NextObs = Literal["following_row", "within_episode"]
ActionRange = Literal["error", "clip", "data"]
OnNonfinite = Literal["error", "drop-episode", "split", "hold"]
DiscreteActions = Literal["error", "continuous"]
OnBadEpisode = Literal["error", "drop"]
ActionUnits = Literal["compared", "environment", "rescaled"]


RULES = (
    *("action_range", "on_nonfinite", "on_bad_episode", "discrete_actions", "env_kwargs", "unscored", "obs_keys"),
    *("action_low", "action_high", "action_units", "max_episode_steps"),
)
"""The fields of `Reading` that decide which rows come out, beside those that `Provenance` has by name."""


@dataclass(frozen=True)
class Reading:
    """How data are read."""

    next_obs: NextObs = "following_row"
    """Where the next observations of a file in D4RL's layout come from. following_row: from the next row, as in D4RL's
    qlearning_dataset; within_episode: from the same episode alone, stored ones first, so that steps cut by time are
    kept. Tables and Minari's sets are always read as within_episode."""
    action_range: ActionRange = "error"
    """Actions outside the bounds: refuse, clip, or map the data's range to [-1, 1]."""
    on_nonfinite: OnNonfinite = "error"
    """NaN or infinity in the data: refuse, drop the episodes that hold them, cut the episodes at the bad rows (split),
    or repeat the last good values (hold)."""
    on_bad_episode: OnBadEpisode = "error"
    """Episodes of a Minari data set that are missing or cannot be read: refuse the data set, or read the others."""
    discrete_actions: DiscreteActions = "error"
    """Actions that are labels (one-hot rows, 0 and 1, up to 32 different whole numbers): refuse them, or treat them as
    amounts."""
    columns: str = ""
    """TOML file that describes the columns of a table (.csv, .tsv, .parquet)."""
    env: str = ""
    """Environment to score on, if the data set's name does not say; its box gives the action bounds. A Gymnasium id, or
    code of yours as module:Id, module:Class or module:function, in the working directory or installed."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment's constructor: key=value ..., or one JSON object."""
    unscored: bool = False
    """Score nothing: no environment is made, and no simulator is needed."""
    obs_keys: tuple[str, ...] = ()
    """Entries of dict observations to join, in this order ("a/b": entry b of entry a); default: observation and
    desired_goal, observation alone, or all vectors, whichever there is first."""
    action_low: tuple[float, ...] = ()
    """Smallest actions in the data's units, one for all or one for each; default: of the environment's box."""
    action_high: tuple[float, ...] = ()
    """Largest actions in the data's units, one for all or one for each; default: of the environment's box."""
    action_units: ActionUnits = "compared"
    """What recorded actions are counted in. compared: the environment's units, and a set whose own action space is
    another than the environment's box is refused; environment: the environment's units, whatever the set's own space
    says; rescaled: the set's own space, or action_low and action_high, is mapped onto the environment's box."""
    max_episode_steps: int = 0
    """Steps after which an episode is cut, where a file has no timeouts and where policies are scored; 0: the
    environment's own limit."""
    max_dataset_bytes: int = 0
    """Bytes that a file may declare; one that declares more is refused before it is read. 0: half of the memory, and
    beyond that 50 times the file's own size."""
    memory_budget: int = 0
    """Bytes that the rows of a file may take; larger ones are mapped from the cache. 0: half of the memory."""
    sha256: tuple[str, ...] = ()
    """Expected SHA-256 of each file; those of D4RL's names are known."""
    download: bool = False
    """Download what is not on this machine."""

    def rules(self) -> dict[str, Any]:
        """The options that decide which rows come out, where they are not the default."""
        return {name: getattr(self, name) for name in RULES if getattr(self, name) != getattr(Reading(), name)}

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
    on_bad_episode: OnBadEpisode
    discrete_actions: DiscreteActions
    columns: str | Path | None
    env: str | Factory | None  # a class of environments, or a function that makes one, too
    env_kwargs: Mapping[str, Any] | Sequence[str]
    unscored: bool
    obs_keys: Sequence[str] | str
    action_low: Sequence[float] | float
    action_high: Sequence[float] | float
    action_units: ActionUnits
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
    if "env" in given:
        given["env"] = factories.allow(given["env"])  # type: ignore[arg-type]
    if isinstance(given.get("env_kwargs"), Mapping):
        given["env_kwargs"] = factories.words_of(given["env_kwargs"])  # type: ignore[arg-type]
    for name in ("env_kwargs", "obs_keys", "action_low", "action_high", "sha256"):
        value = given.get(name)
        if isinstance(value, str | int | float):
            given[name] = (value,)
        elif isinstance(value, Sequence):
            given[name] = tuple(value)
    return replace(reading, **given)  # type: ignore[arg-type]


class Read(NamedTuple):
    """What a reader returns of one data set, before values are checked."""

    columns: Columns  # the arrays
    task: Task | None  # the environment, where it is known
    source: Provenance  # where they came from
