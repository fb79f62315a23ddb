"""Networks, and what trains them: layers, normalization, optimizers, precision."""

from __future__ import annotations

from offline_vi.nn.conv import ConvDecoder as ConvDecoder, ConvEncoder as ConvEncoder
from offline_vi.nn.description import (
    Record as Record,
    class_named as class_named,
    classes_in as classes_in,
    describe as describe,
    rebuild as rebuild,
    single_seed as single_seed,
    spec_of as spec_of,
)
from offline_vi.nn.initialization import Init as Init, initialized as initialized
from offline_vi.nn.networks import (
    Critic as Critic,
    DeterministicPolicy as DeterministicPolicy,
    EnsembleLayerNorm as EnsembleLayerNorm,
    EnsembleLinear as EnsembleLinear,
    EnsembleMLP as EnsembleMLP,
    StackedLinear as StackedLinear,
    TanhNormalPolicy as TanhNormalPolicy,
    Unchanged as Unchanged,
    ValueFunction as ValueFunction,
    fold as fold,
    join as join,
    linear as linear,
    mlp as mlp,
    relu as relu,
    target_of as target_of,
    unfold as unfold,
)
from offline_vi.nn.normalizer import Normalizer as Normalizer
from offline_vi.nn.optim import (
    Schedule as Schedule,
    adam as adam,
    cosine_ as cosine_,
    follow_ as follow_,
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
    processor as processor,
    use_products as use_products,
    without_gradient as without_gradient,
)
from offline_vi.nn.recorded import Recorded as Recorded
from offline_vi.nn.stack import stack_ as stack_, unstack_ as unstack_
from offline_vi.nn.state import (
    Scheduled as Scheduled,
    Slot as Slot,
    State as State,
    decode as decode,
    encode as encode,
    parameters_and_buffers as parameters_and_buffers,
    refuse_unsaved as refuse_unsaved,
    restore as restore,
    slots as slots,
    snapshot as snapshot,
)
