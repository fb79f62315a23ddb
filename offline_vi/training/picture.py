"""A figure that a notebook shows as a picture, whichever way its plots are set up."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """Matplotlib's figure, and how IPython draws it."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()
