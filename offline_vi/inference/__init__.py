"""Variational inference: a prior, a likelihood and a posterior, trained with one bound."""

from __future__ import annotations

from offline_vi.inference.bayesian import (
    BayesianLinear as BayesianLinear,
    BayesianMLP as BayesianMLP,
    DataLikelihood as DataLikelihood,
    Network as Network,
    RandomFourierFeatures as RandomFourierFeatures,
    RowLikelihood as RowLikelihood,
    WeightBelief as WeightBelief,
    WeightPrior as WeightPrior,
    expected_gain as expected_gain,
    information_gain as information_gain,
    normal as normal,
    realised_gain as realised_gain,
)
from offline_vi.inference.bounds import (
    Bound as Bound,
    ElboEstimator as ElboEstimator,
    Estimate as Estimate,
    IwaeEstimator as IwaeEstimator,
    KLWarmup as KLWarmup,
    Posterior as Posterior,
    Weights as Weights,
    active_units as active_units,
    bound_metrics as bound_metrics,
    distortion as distortion,
    elbo as elbo,
    evidence_gap as evidence_gap,
    iwae as iwae,
    rate as rate,
)
from offline_vi.inference.latent import (
    Conditional as Conditional,
    ConditionalMixtureParameters as ConditionalMixtureParameters,
    ConditionalNormalPrior as ConditionalNormalPrior,
    Latent as Latent,
    LatentVariableModel as LatentVariableModel,
    LinearGaussian as LinearGaussian,
    LinearLikelihood as LinearLikelihood,
    Mixture as Mixture,
    MixtureParameters as MixtureParameters,
    StandardNormalPrior as StandardNormalPrior,
)
from offline_vi.inference.optimality import (
    LogPrior as LogPrior,
    Optimal as Optimal,
    Optimality as Optimality,
    Unsquashed as Unsquashed,
    Value as Value,
    flat as flat,
    uniform as uniform,
    weight as weight,
)
from offline_vi.inference.posterior import (
    AmortizedPosterior as AmortizedPosterior,
    DiagonalLocalPosterior as DiagonalLocalPosterior,
    FullLocalPosterior as FullLocalPosterior,
    LocalPosterior as LocalPosterior,
    fit_local as fit_local,
)
