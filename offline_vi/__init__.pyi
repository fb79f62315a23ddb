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
    rl as rl,
    runs as runs,
    study as study,
    training as training,
    types as types,
    world_model as world_model,
)
from .algorithms.build import load as load
from .behavior.pretrained import load_behavior as load_behavior, save_behavior as save_behavior
from .behavior.proposals import CandidateCache as CandidateCache
from .data.frames import Frames as Frames, SequenceSampler as SequenceSampler
from .data.samplers import Sampler as Sampler
from .data.transitions import Provenance as Provenance, Transitions as Transitions
from .errors import OfflineVIError as OfflineVIError
from .evaluation.evaluate import Evaluation as Evaluation, evaluate as evaluate
from .nn.normalizer import Normalizer as Normalizer
from .rl.algorithm import (
    Algorithm as Algorithm,
    Jointly as Jointly,
    Normalized as Normalized,
    OnlineAlgorithm as OnlineAlgorithm,
    Rescaled as Rescaled,
)
from .rl.policies import Policy as Policy, StatefulPolicy as StatefulPolicy
from .runs.directory import RunDirectory as RunDirectory
from .training.loop import fit as fit, fit_behavior as fit_behavior, fit_online as fit_online
from .training.metrics import History as History
from .training.randomness import set_seed as set_seed
from .types import Batch as Batch, Metrics as Metrics, Spec as Spec, Task as Task

__version__: str
