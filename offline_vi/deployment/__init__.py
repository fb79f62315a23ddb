"""A trained policy as one file that runs without this library."""

from __future__ import annotations

from offline_vi.deployment.acting import Acting as Acting
from offline_vi.deployment.formats import FORMATS as FORMATS, Format as Format
from offline_vi.deployment.trial import Trial as Trial, tried as tried
