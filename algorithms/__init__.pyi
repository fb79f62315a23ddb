from .bc import BC as BC, BCConfig as BCConfig
from .bcq import BCQ as BCQ, BCQConfig as BCQConfig
from .bear import BEAR as BEAR, BEARConfig as BEARConfig
from .cql import CQL as CQL, CQLConfig as CQLConfig
from .ddpg import DDPG as DDPG, DDPGConfig as DDPGConfig
from .emaq import EMaQ as EMaQ, EMaQConfig as EMaQConfig
from .idql import IDQL as IDQL, IDQLConfig as IDQLConfig
from .iql import IQL as IQL, IQLConfig as IQLConfig
from .latent_planning import LatentPlanning as LatentPlanning, LatentPlanningConfig as LatentPlanningConfig
from .onestep import OneStep as OneStep, OneStepConfig as OneStepConfig
from .plas import PLAS as PLAS, PLASConfig as PLASConfig
from .rebrac import ReBRAC as ReBRAC, ReBRACConfig as ReBRACConfig
from .sac import KLSAC as KLSAC, SAC as SAC, KLSACConfig as KLSACConfig, SACConfig as SACConfig
from .soft_q import (
    DiscreteSAC as DiscreteSAC,
    DiscreteSACConfig as DiscreteSACConfig,
    SoftQ as SoftQ,
    SoftQConfig as SoftQConfig,
)
from .spot import SPOT as SPOT, SPOTConfig as SPOTConfig
from .td3 import TD3 as TD3, TD3Config as TD3Config
from .td3_bc import TD3BC as TD3BC, TD3BCConfig as TD3BCConfig
from .vime import VIME as VIME, VIMEConfig as VIMEConfig
