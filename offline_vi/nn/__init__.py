"""Networks, and what trains them: layers, normalization, optimizers, precision."""

from __future__ import annotations

from offline_vi.nn.conv import ConvDecoder as ConvDecoder, ConvEncoder as ConvEncoder
from offline_vi.nn.networks import (
    Critic as Critic,
    DeterministicPolicy as DeterministicPolicy,
    EnsembleLayerNorm as EnsembleLayerNorm,
    EnsembleLinear as EnsembleLinear,
    EnsembleMLP as EnsembleMLP,
    StackedLinear as StackedLinear,
    TanhNormalPolicy as TanhNormalPolicy,
    Unchanged as Unchanged,
    fold as fold,
    join as join,
    linear as linear,
    mlp as mlp,
    relu as relu,
    unfold as unfold,
)
from offline_vi.nn.normalizer import Normalizer as Normalizer
from offline_vi.nn.optim import (
    adam as adam,
    cosine_ as cosine_,
    gradient_step as gradient_step,
    polyak_ as polyak_,
    steps_taken as steps_taken,
)
from offline_vi.nn.precision import (
    differences as differences,
    exact_products as exact_products,
    facts as facts,
    full_precision as full_precision,
    keep_freed_memory as keep_freed_memory,
    precision_of_targets as precision_of_targets,
    preferred_precision as preferred_precision,
    use_products as use_products,
    without_gradient as without_gradient,
)
from offline_vi.nn.stack import stack_ as stack_, unstack_ as unstack_
