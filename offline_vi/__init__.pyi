from . import (
    algorithms as algorithms,
    behavior as behavior,
    data as data,
    datasets as datasets,
    distributions as distributions,
    environments as environments,
    errors as errors,
    evaluation as evaluation,
    inference as inference,
    nn as nn,
    registry as registry,
    rl as rl,
    runs as runs,
    study as study,
    training as training,
    types as types,
    world_model as world_model,
)
from .behavior.pretrained import load_behavior as load_behavior, save_behavior as save_behavior
from .behavior.proposals import CandidateCache as CandidateCache, Proposals as Proposals
from .data.frames import Frames as Frames, SequenceSampler as SequenceSampler
from .data.samplers import Sampler as Sampler
from .data.transitions import Provenance as Provenance, Transitions as Transitions
from .errors import OfflineVIError as OfflineVIError
from .evaluation.evaluate import Evaluation as Evaluation, evaluate as evaluate
from .evaluation.states import fit_states as fit_states, load_states as load_states, save_states as save_states
from .nn.normalizer import Normalizer as Normalizer
from .plugins import load_plugin as load_plugin
from .registry import (
    register_algorithm as register_algorithm,
    register_behavior as register_behavior,
    register_dataset as register_dataset,
)
from .rl.algorithm import (
    Algorithm as Algorithm,
    Jointly as Jointly,
    OnlineAlgorithm as OnlineAlgorithm,
    normalizer_of as normalizer_of,
)
from .rl.policies import (
    BehaviorPolicy as BehaviorPolicy,
    CandidatePolicy as CandidatePolicy,
    GaussianNoise as GaussianNoise,
    GuardedPolicy as GuardedPolicy,
    Policy as Policy,
    StatefulPolicy as StatefulPolicy,
)
from .runs.directory import RunDirectory as RunDirectory
from .study.export import export as export
from .study.kept import load as load, save as save
from .study.python import fit as fit, fit_behavior as fit_behavior, fit_online as fit_online
from .study.scoring import load_task as load_task
from .training.metrics import History as History
from .training.randomness import set_seed as set_seed
from .types import Batch as Batch, Metrics as Metrics, RewardMap as RewardMap, Spec as Spec, Task as Task

__version__: str
