"""The algorithms: one paper, one file.

Names are listed once, in ``__init__.pyi``, and imported when they are used: this package imports no torch.
"""

import lazy_loader

from offline_vi.renamed import with_former_names

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = with_former_names(__name__, _find)
