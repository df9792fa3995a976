"""Views: augmented copies of a batch, each a pure function of the batch and the address."""

from __future__ import annotations

from overtone.views.fragments import FragmentViews
from overtone.views.image_table import ImageTableViews
from overtone.views.image_text import ImageTextViews
from overtone.views.images import ImageViews
from overtone.views.per_sample import PerSampleViews
from overtone.views.report import ReportViews
from overtone.views.same import SameViews
from overtone.views.series import SeriesViews

__all__ = [
    "FragmentViews",
    "ImageTableViews",
    "ImageTextViews",
    "ImageViews",
    "PerSampleViews",
    "ReportViews",
    "SameViews",
    "SeriesViews",
]
