"""offline_vi: offline reinforcement learning centered on a generative behavior model.

Everything public is importable from here, lazily: ``import offline_vi`` imports neither torch nor gymnasium. The names
are listed once, in ``__init__.pyi``, where type checkers and the line below find them.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
