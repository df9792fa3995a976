from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional

from overtone.views.images import blur
from overtone.views.resampling import crop_boxes, crop_matrix, resampled

BOXES = [(0, 0, 12, 10), (3, 2, 5, 8), (11, 9, 1, 1), (0, 4, 12, 3)]


def pictures() -> torch.Tensor:
    return torch.rand(4, 3, 12, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("out_size", [(12, 10), (5, 3), (20, 31)], ids=["same", "smaller", "larger"])
def test_a_crop_equals_torchvisions_antialiased_one_and_then_the_flip(out_size: tuple[int, int]) -> None:
    flip = torch.tensor([False, True, False, True])
    top, left, height, width = torch.tensor(BOXES).unbind(1)
    rows = crop_matrix(top, height, 12, out_size[0])
    columns = crop_matrix(left, width, 10, out_size[1], flip)
    for sample, (image, box) in enumerate(zip(pictures(), BOXES, strict=True)):
        expected = functional.resized_crop(image, *box, size=list(out_size), antialias=True)
        expected = functional.horizontal_flip(expected) if flip[sample] else expected
        actual = resampled(pictures(), rows, columns)[sample]
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_crops_of_random_boxes_equal_torchvisions() -> None:
    uniform = torch.rand(40, 22, generator=torch.Generator().manual_seed(2))
    images = torch.rand(40, 1, 16, 24, generator=torch.Generator().manual_seed(3))
    top, left, height, width = crop_boxes(uniform, (16, 24), (0.08, 1.0), (3 / 4, 4 / 3))
    views = resampled(images, crop_matrix(top, height, 16, 8), crop_matrix(left, width, 24, 8))
    for i, image in enumerate(images):
        box = [int(side[i]) for side in (top, left, height, width)]
        expected = functional.resized_crop(image, *box, size=[8, 8], antialias=True)
        torch.testing.assert_close(views[i], expected, atol=1e-5, rtol=0)


def test_boxes_lie_within_the_picture_and_keep_area_and_ratio() -> None:
    uniform = torch.rand(2000, 22, generator=torch.Generator().manual_seed(4))
    top, left, height, width = crop_boxes(uniform, (100, 80), (0.2, 1.0), (3 / 4, 4 / 3))
    assert bool((top >= 0).all() and (left >= 0).all())
    assert bool((top + height <= 100).all() and (left + width <= 80).all())
    # Rounding to whole pixels moves a side of some 30 pixels by up to half a pixel.
    share, ratio = height * width / 8000, width / height
    assert 0.19 < share.min() < 0.25
    assert 0.9 < share.max() <= 1
    assert 0.73 < ratio.min() < 0.77
    assert 1.28 < ratio.max() < 1.36
    assert set(top[height == height.max()].tolist()) <= set(range(101))


def test_the_largest_box_of_an_allowed_ratio_is_taken_where_none_fits() -> None:
    uniform = torch.rand(50, 22, generator=torch.Generator().manual_seed(5))
    _, _, height, width = crop_boxes(uniform, (10, 40), (1.0, 1.0), (1.0, 2.0))
    assert (set(height.tolist()), set(width.tolist())) == ({10.0}, {20.0})


@pytest.mark.parametrize("size", [(32, 32), (64, 20), (3, 90)])
def test_blur_equals_torchvision_with_a_kernel_of_a_tenth_of_each_side(size: tuple[int, int]) -> None:
    images = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(6))
    sigmas = torch.tensor([0.1, 0.8, 2.0])
    kernel = [2 * max(round(side / 20), 1) + 1 for side in reversed(size)]
    for i, sigma in enumerate(sigmas.tolist()):
        expected = functional.gaussian_blur(images[i], kernel, [sigma, sigma])
        torch.testing.assert_close(blur(images, sigmas)[i], expected, atol=1e-5, rtol=0)


def test_blur_takes_a_picture_of_one_pixel() -> None:
    assert blur(torch.full((1, 1, 1, 1), 0.25), torch.tensor([1.0])).item() == 0.25


def test_autocast_does_not_round_the_pictures() -> None:
    matrix = crop_matrix(torch.zeros(4), torch.full((4,), 7.0), 12, 12)
    columns = torch.eye(10).expand(4, 10, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = resampled(pictures(), matrix, columns)
    assert torch.equal(inside, resampled(pictures(), matrix, columns))
