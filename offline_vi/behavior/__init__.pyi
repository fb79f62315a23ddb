from .base import (
    BehaviorModel as BehaviorModel,
    CentralModel as CentralModel,
    DensityModel as DensityModel,
    FitSettings as FitSettings,
    LatentModel as LatentModel,
    Proposals as Proposals,
    require_capability as require_capability,
)
from .cvae import CVAE as CVAE, CVAEConfig as CVAEConfig
from .flow import FlowBehavior as FlowBehavior, FlowBehaviorConfig as FlowBehaviorConfig
from .flow_matching import (
    FlowMatchingBehavior as FlowMatchingBehavior,
    FlowMatchingBehaviorConfig as FlowMatchingBehaviorConfig,
)
from .gaussian import GaussianBehavior as GaussianBehavior, GaussianBehaviorConfig as GaussianBehaviorConfig
from .inputs import RunningNormalizer as RunningNormalizer
from .least_squares import (
    LeastSquaresBehavior as LeastSquaresBehavior,
    LeastSquaresBehaviorConfig as LeastSquaresBehaviorConfig,
)
from .mixture import MixtureBehavior as MixtureBehavior, MixtureBehaviorConfig as MixtureBehaviorConfig
from .proposals import (
    CandidateCache as CandidateCache,
    CentralActions as CentralActions,
    DecoderMeans as DecoderMeans,
    MostLikelySamples as MostLikelySamples,
)
from .reference import EveryAction as EveryAction, UniformBox as UniformBox
