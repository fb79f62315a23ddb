"""Distributions, the heads that make them from the outputs of a network, and the one reduction."""

from __future__ import annotations

from offline_vi.distributions.heads import (
    BernoulliHead as BernoulliHead,
    ContinuousBernoulliHead as ContinuousBernoulliHead,
    DiscretizedLogisticHead as DiscretizedLogisticHead,
    FixedScale as FixedScale,
    GaussianHead as GaussianHead,
    LearnedScale as LearnedScale,
    OptimalNormal as OptimalNormal,
    OptimalScale as OptimalScale,
    PredictedScale as PredictedScale,
    TanhNormalHead as TanhNormalHead,
    identity as identity,
)
from offline_vi.distributions.normal import (
    Bounded as Bounded,
    DiagonalNormal as DiagonalNormal,
    FullNormal as FullNormal,
    MirroredNormal as MirroredNormal,
    detached as detached,
    kl_per_dim as kl_per_dim,
    registered_kl as registered_kl,
    soft_clamp as soft_clamp,
    soft_clamp_inverse as soft_clamp_inverse,
)
from offline_vi.distributions.pixels import (
    ContinuousBernoulli as ContinuousBernoulli,
    DiscretizedLogistic as DiscretizedLogistic,
    dequantize as dequantize,
    log_sinhc as log_sinhc,
)
from offline_vi.distributions.reduction import log_mean_exp as log_mean_exp
from offline_vi.distributions.squashed import TanhNormal as TanhNormal, log_dtanh as log_dtanh
from offline_vi.distributions.truncated import TruncatedNormal as TruncatedNormal
