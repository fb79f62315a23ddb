"""The directory of a run: files, tensors, logs, checkpoints.

Names are listed once, in ``__init__.pyi``, and imported when they are used: this package imports no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
