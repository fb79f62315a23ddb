"""offline_vi: offline reinforcement learning centered on a generative behavior model.

Everything public is importable from here, lazily: ``import offline_vi`` imports neither torch nor gymnasium. The names
are listed once, in ``__init__.pyi``, where type checkers and the line below find them.
"""

import lazy_loader

from offline_vi.renamed import with_former_names

__version__ = "0.1.0"

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = with_former_names(__name__, _find)
