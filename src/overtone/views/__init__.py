"""Views: augmented copies of a batch, each a pure function of the batch and the address."""

from __future__ import annotations

from overtone.views.image_text import ImageTextViews
from overtone.views.images import ImageViews
from overtone.views.per_sample import PerSampleViews
from overtone.views.series import SeriesViews
from overtone.views.unchanged import Unchanged

__all__ = ["ImageTextViews", "ImageViews", "PerSampleViews", "SeriesViews", "Unchanged"]
