"""The numbers that mean something: a range for each name of an option or a hyper-parameter.

One name means one thing in this library, and so it has one range wherever it stands: on a command line, in a
configuration, a suite, a card, a run. Importing this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from offline_vi.errors import ConfigError

LARGEST = 2**62  # of whole numbers: they are kept in 64 bits
LARGEST_FLOAT = 3.4028234663852886e38  # of numbers: tensors have 32 bits


class Range(NamedTuple):
    """The numbers from ``low`` to ``high``; an end that is ``open`` is none of them."""

    low: float = -math.inf  # the smallest number
    high: float = math.inf  # the largest number
    open: tuple[float, ...] = ()  # the ends that do not belong to it

    def holds(self, value: float) -> bool:
        """Whether a number lies in it; NaN lies nowhere."""
        return self.low <= value <= self.high and value not in self.open

    def __str__(self) -> str:
        if self.high in (math.inf, LARGEST):
            if self.low == -math.inf:
                return "a finite number"
            return f"a number above {self.low:g}" if self.low in self.open else f"at least {self.low:g}"
        low = f"above {self.low:g}" if self.low in self.open else f"from {self.low:g}"
        return f"a number {low}, {'below' if self.high in self.open else 'up to'} {self.high:,.10g}"


FINITE = Range(open=(-math.inf, math.inf))
POSITIVE, NOT_NEGATIVE = Range(0.0, open=(0.0, math.inf)), Range(0.0, open=(math.inf,))
UP_TO_INFINITY = Range(0.0)
SHARE, SOME, PART = Range(0.0, 1.0), Range(0.0, 1.0, (0.0,)), Range(0.0, 1.0, (1.0,))
INSIDE = Range(0.0, 1.0, (0.0, 1.0))
COUNT, NATURAL = Range(1, LARGEST), Range(0, LARGEST)
SIZE = Range(1, 10_000_000)  # of what takes memory: units, rows of a batch, candidates

RANGES: Mapping[str, Range] = {
    name: kind
    for kind, names in {
        COUNT: "steps value_steps return_steps bcq_steps "
        "episodes eval_episodes log_every save_every refresh policy_delay trials length jobs "
        "iwae_samples iterations ode_steps capacity rows seeds fits clone_steps rollouts",
        NATURAL: "seed critic_start_steps "
        "eval_seed seed_index eval_every bank_period behavior_steps warmup kl_warmup decay_steps passes "
        "cooldown max_episode_steps max_dataset_bytes memory_budget max_rows startup video retries",
        SIZE: "batch_size hidden belief_hidden belief channels features latent_dim num_candidates candidates elite "
        "num_acting_candidates num_match num_samples num_backup_samples num_components transforms bins horizon",
        Range(1, 1_000): "num_seeds num_envs ensemble stack folds",
        Range(1, 256): "threads",
        POSITIVE: "lr actor_lr critic_lr belief_lr eps kernel_sigma min_scale init_scale sigma_min box frequency "
        "weight_alpha spread scale",
        NOT_NEGATIVE: "alpha beta beta_actor beta_critic eta free_bits phi penalty policy_noise noise sigma gpus "
        "prior_rollouts temperature_rate median_rate threshold lagrange_threshold max_latent lmbda",
        UP_TO_INFINITY: "noise_clip policy_noise_clip temperature max_weight",
        SHARE: "discount value_discount return_lambda lam tau kl_balance share cooldown_floor",
        SOME: "best_share",
        Range(0.001, 1.0): "keep",  # N / keep samples are drawn for N candidates
        PART: "dropout guard guard_states",
        INSIDE: "expectile held_out best_steps kept",
        FINITE: "reward_shift end_penalty shift init_log_scale log_multiplier log_multiplier_range target_entropy "
        "action_low action_high safe_action",
    }.items()
    for name in names.split()
}


def check_numbers(settings: Any) -> None:
    """Look at the fields of a dataclass, and of those in it. Raises ConfigError for a number outside its range.

    Of a class that is not this library's only NaN is refused: its names may mean other things.
    """
    ours = type(settings).__module__.partition(".")[0] == "offline_vi"
    for field in fields(settings):
        value = getattr(settings, field.name)
        known = RANGES.get(field.name) if ours else None
        if is_dataclass(value):
            check_numbers(value)
        elif known is not None and value is not None and not isinstance(value, str):  # a choice: vime.belief
            for number in numbers(value, field.name):
                if not known.holds(number):
                    raise ConfigError(f"{field.name} = {short(value)} is out of range", str(known))
        elif isinstance(value, float) and math.isnan(value):
            raise ConfigError(f"{field.name} is NaN", "give a number")


def numbers(value: Any, name: str) -> Iterator[float]:
    """A number, or those of a list. Raises ConfigError for anything else."""
    for entry in value if isinstance(value, tuple | list) else (value,):
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            raise ConfigError(f"{name} = {short(value)} is no number", "look at --help")
        if LARGEST_FLOAT < abs(entry) < math.inf:
            raise ConfigError(f"{name} = {short(value)} is out of range", "a smaller number")
        yield entry


def short(value: Any) -> str:
    """A value in at most 60 characters; Python itself refuses to print some whole numbers."""
    try:
        text = str(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
