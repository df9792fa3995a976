from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional

from overtone.views import colour

FACTORS = torch.tensor([0.0, 0.4, 1.0, 1.7])
TURNS = torch.tensor([-0.5, -0.07, 0.0, 0.5])


def pictures(channels: int = 3) -> torch.Tensor:
    """Random ones, and one with grey pixels, equal channels and extremes, where hue has its cases."""
    images = torch.rand(4, channels, 9, 7, generator=torch.Generator().manual_seed(0))
    images[2] = images[2].round()
    images[3, :, :4] = images[3, :1, :4]
    return images


@pytest.mark.parametrize(
    ("ours", "theirs", "strengths"),
    [
        (colour.brightness_, functional.adjust_brightness, FACTORS),
        (colour.contrast_, functional.adjust_contrast, FACTORS),
        (colour.saturation_, functional.adjust_saturation, FACTORS),
        (colour.hue_, functional.adjust_hue, TURNS),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_each_jitter_equals_torchvision_for_every_sample_and_strength(ours, theirs, strengths) -> None:  # type: ignore[no-untyped-def]
    for shift in range(4):
        drawn = strengths.roll(shift)
        expected = torch.stack([theirs(x, float(s)) for x, s in zip(pictures(), drawn, strict=True)])
        torch.testing.assert_close(ours(pictures(), drawn), expected, atol=1e-5, rtol=0)


def test_contrast_of_one_channel_equals_torchvision() -> None:
    expected = torch.stack(
        [functional.adjust_contrast(x, float(f)) for x, f in zip(pictures(1), FACTORS, strict=True)]
    )
    torch.testing.assert_close(colour.contrast_(pictures(1), FACTORS), expected, atol=1e-5, rtol=0)


def test_grey_and_solarise_equal_torchvision() -> None:
    expected = functional.rgb_to_grayscale(pictures(), num_output_channels=1)
    torch.testing.assert_close(colour.grey(pictures()), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(colour.solarise(pictures()), functional.solarize(pictures(), 0.5))


def test_jitters_change_the_pictures_in_place() -> None:
    images = pictures()
    assert colour.hue_(images, TURNS) is images
