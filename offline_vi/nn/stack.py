"""Several seeds of one algorithm side by side in one process: an axis S just left of the batch, (..., S, B, .).

An algorithm built from ``spec.stacked(S)`` has weights (S, in, out), meets batches (S, B, .) of a `StackedSampler`, and
takes the same `update`: its losses are one value per seed, which `gradient_step` sums. No two seeds share a weight, a
batch or a draw of noise, and no operation mixes them: what happens to one leaves the others' bytes as they are. A
frozen behavior model, and the candidates drawn ahead from it, are shared like the data.

    agent = BCQ(data.spec.stacked(4), DecoderMeans(frozen))
    stack_(agent, [BCQ(data.spec, DecoderMeans(frozen)) for each seed])          # every seed's own initialisation
    fit(agent, data, steps, seed=0)
    unstack_(one, agent, 2)                                                 # the third seed as an algorithm of its own
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from offline_vi.nn.networks import StackedLinear


@torch.no_grad()
def stack_(stacked: nn.Module, singles: Sequence[nn.Module]) -> None:
    """Give seed s of ``stacked`` the parameters and buffers of ``singles[s]``, which are built alike but for the axis.

    What has no axis (counters, a shared model) is taken from the first.
    """
    for seed, single in enumerate(singles):
        for whole, part, own in _pairs(stacked, single, seed):
            if part is not None:
                part.copy_(own)
            elif seed == 0:
                whole.copy_(own)


@torch.no_grad()
def unstack_(single: nn.Module, stacked: nn.Module, seed: int) -> None:
    """Give ``single`` the parameters and buffers of one seed of ``stacked``."""
    for whole, part, own in _pairs(stacked, single, seed):
        own.copy_((whole if part is None else part).reshape(own.shape))


def _pairs(stacked: nn.Module, single: nn.Module, seed: int) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """(stacked tensor, the seed's part of it seen in the layout of the single one, the single one); the part is None
    where the tensor has no axis S. A module that is in both, as a frozen behavior model, has nothing to give."""
    modules = dict(single.named_modules())
    for name, module in stacked.named_modules():
        if module in modules.values():
            continue
        for key, whole in {**module._parameters, **module._buffers}.items():
            tensor = getattr(modules[name], key)
            if whole is None or tensor is None:
                continue
            if whole.shape == tensor.shape:
                yield whole, None, tensor
                continue
            part = whole.select(max(whole.ndim - 3, 0), seed)
            if isinstance(module, StackedLinear) and key == "weight":
                part = part.mT  # torch.nn.Linear keeps (out, in)
            yield whole, part, tensor
