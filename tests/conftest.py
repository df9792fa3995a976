"""One thread everywhere, also in the processes that tests start: tiny data, and equal rounding."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
