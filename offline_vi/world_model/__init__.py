"""Models of dynamics in a latent space, and planning with them."""

from __future__ import annotations

from offline_vi.world_model.dynamics import (
    Choice as Choice,
    Dynamics as Dynamics,
    DynamicsConfig as DynamicsConfig,
    Emission as Emission,
    FilteringPosterior as FilteringPosterior,
    FramePosterior as FramePosterior,
    Imagined as Imagined,
    Inferred as Inferred,
    LatentDynamicsModel as LatentDynamicsModel,
    MarkovDynamics as MarkovDynamics,
    Outcome as Outcome,
    RecurrentDynamics as RecurrentDynamics,
    Step as Step,
    averaged as averaged,
    disagreement as disagreement,
    drawn as drawn,
    latent_dynamics as latent_dynamics,
    sequence_elbo as sequence_elbo,
    values as values,
)
from offline_vi.world_model.planning import (
    BehaviorProposal as BehaviorProposal,
    GaussianProposal as GaussianProposal,
    Plan as Plan,
    PlanConfig as PlanConfig,
    Proposal as Proposal,
    Value as Value,
    Weighing as Weighing,
    discounted_return as discounted_return,
    elites as elites,
    exponential as exponential,
    plan as plan,
    search as search,
)
