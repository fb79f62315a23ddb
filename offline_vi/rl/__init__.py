"""Algorithms and policies: their interfaces, and the equations that they share."""

from __future__ import annotations

from offline_vi.rl.algorithm import (
    Algorithm as Algorithm,
    Jointly as Jointly,
    OnlineAlgorithm as OnlineAlgorithm,
    Wrapper as Wrapper,
    find_capability as find_capability,
    find_part as find_part,
    normalizer_of as normalizer_of,
    set_task as set_task,
)
from offline_vi.rl.equations import (
    Kernel as Kernel,
    advantage_weight as advantage_weight,
    bellman_target as bellman_target,
    clipped_double_q as clipped_double_q,
    expectile_loss as expectile_loss,
    gaussian_kernel as gaussian_kernel,
    laplacian_kernel as laplacian_kernel,
    min_q as min_q,
    mmd_squared as mmd_squared,
    normalized_q as normalized_q,
    return_scale as return_scale,
    smoothed as smoothed,
    soft_value as soft_value,
    td_loss as td_loss,
)
from offline_vi.rl.fixed_noise import FixedNoise as FixedNoise
from offline_vi.rl.policies import (
    BehaviorPolicy as BehaviorPolicy,
    CandidatePolicy as CandidatePolicy,
    Counting as Counting,
    DeterministicPolicy as DeterministicPolicy,
    Explorer as Explorer,
    GaussianNoise as GaussianNoise,
    GuardedPolicy as GuardedPolicy,
    NoisyPolicy as NoisyPolicy,
    Perturb as Perturb,
    Policy as Policy,
    Ranks as Ranks,
    StatefulPolicy as StatefulPolicy,
    StochasticPolicy as StochasticPolicy,
    Value as Value,
    Valued as Valued,
    q_value as q_value,
)
