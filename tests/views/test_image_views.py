from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from torchvision.transforms.v2 import functional

from overtone import rng
from overtone.contracts import Address, Batch
from overtone.errors import DataError, RecipeError
from overtone.views import ImageViews

ADDRESS = Address(seed=3, stage=1, step=7)
OFF: dict[str, Any] = {
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
    "flip": 0.0,
    "jitter": 0.0,
    "grey": 0.0,
}
EVERYTHING: dict[str, Any] = {"blur": 0.5, "solarise": 0.5}


def batch(n: int = 12, channels: int = 3, side: int = 10) -> Batch:
    images = torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(0))
    index = torch.arange(n) * 5 + 2
    return {"index": index, "image": images.to(torch.uint8), "cell": index % 3, "identity": index}


def part(whole: Batch, rows: slice) -> Batch:
    return {key: value[rows] for key, value in whole.items()}


def test_views_of_a_sample_do_not_depend_on_how_the_batch_is_split() -> None:
    views = ImageViews(**EVERYTHING)
    whole = views(batch(), ADDRESS)
    split = [views(part(batch(), rows), ADDRESS) for rows in (slice(0, 5), slice(5, 6), slice(6, 12))]
    for view in range(2):
        joined = torch.cat([some[view]["image"] for some in split])
        # A matrix product of another batch size may sum in another order.
        torch.testing.assert_close(joined, whole[view]["image"], atol=1e-6, rtol=0)


def test_views_are_a_pure_function_of_batch_and_address() -> None:
    views = ImageViews(**EVERYTHING)
    before, state = batch(), torch.get_rng_state()
    first, again = views(before, ADDRESS), ImageViews(**EVERYTHING)(batch(), ADDRESS)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert torch.equal(before["image"], batch()["image"])
    assert torch.equal(state, torch.get_rng_state())


def test_views_differ_from_each_other_and_between_addresses() -> None:
    views = ImageViews(n_views=3)
    seen = [view["image"] for view in views(batch(), ADDRESS)]
    for other in (ADDRESS._replace(seed=4), ADDRESS._replace(stage=2), ADDRESS._replace(step=8)):
        seen.append(views(batch(), other)[0]["image"])
    for i, image in enumerate(seen):
        assert all(not torch.equal(image, other) for other in seen[:i])


def test_all_keys_stay_and_only_the_image_changes() -> None:
    given = batch()
    for view in ImageViews(**EVERYTHING)(given, ADDRESS):
        assert view.keys() == given.keys()
        assert all(view[key] is given[key] for key in given if key != "image")
        assert view["image"].dtype == torch.float32
        assert view["image"].min() >= -1e-6
        assert view["image"].max() <= 1 + 1e-6


def test_with_everything_off_a_view_is_the_picture() -> None:
    for view in ImageViews(**OFF)(batch(), ADDRESS):
        torch.testing.assert_close(view["image"], batch()["image"] / 255, atol=1e-6, rtol=0)


def test_uint8_uint16_and_float_pictures_give_the_same_views() -> None:
    views, small = ImageViews(), batch()
    wide = {**small, "image": (small["image"].int() * 257).to(torch.uint16)}
    unit = {**small, "image": small["image"] / 255}
    expected = views(small, ADDRESS)[0]["image"]
    for other in (wide, unit):
        torch.testing.assert_close(views(other, ADDRESS)[0]["image"], expected, atol=1e-5, rtol=0)


def test_the_jitters_are_torchvisions_in_the_order_drawn_for_the_view() -> None:
    place = (ADDRESS.seed, "views", ADDRESS.stage, ADDRESS.step, 0)
    drawn = rng.uniforms(batch()["index"], 5, *place, "jitter")
    order = torch.randperm(4, generator=rng.generator(*place, "order")).tolist()
    operations = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation]
    view = ImageViews(n_views=1, **{**OFF, "jitter": 0.8})(batch(), ADDRESS)[0]["image"]
    for i, image in enumerate(batch()["image"] / 255):
        strengths = [0.6 + 0.8 * float(u) for u in drawn[i, 1:4]] + [-0.1 + 0.2 * float(drawn[i, 4])]
        if drawn[i, 0] < 0.8:
            for j in order:
                image = [*operations, functional.adjust_hue][j](image, strengths[j])
        torch.testing.assert_close(view[i], image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur", "solarise"])
def test_each_operation_changes_its_share_of_the_samples(name: str) -> None:
    many = batch(n=400, side=4)
    view = ImageViews(n_views=1, **{**OFF, name: 0.3, "blur_sigma": (1.0, 2.0)})(many, ADDRESS)[0]["image"]
    changed = ((view - many["image"] / 255).abs() > 1e-4).flatten(1).any(1).float().mean().item()
    # Four standard deviations of a binomial share.
    assert abs(changed - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 400)


def test_outside_the_region_all_views_are_the_picture() -> None:
    given = batch(side=12)
    for view in ImageViews(region=(2, 3, 6, 9), **EVERYTHING)(given, ADDRESS):
        same = (view["image"] == given["image"] / 255).all(1).all(0)
        assert not same[2:8, 3:12].any()
        same[2:8, 3:12] = True
        assert same.all()


def test_the_region_is_augmented_as_a_picture_of_its_own() -> None:
    given = batch(side=12)
    alone = {**given, "image": given["image"][:, :, 2:8, 3:12]}
    inside = ImageViews(region=(2, 3, 6, 9))(given, ADDRESS)[1]["image"][:, :, 2:8, 3:12]
    assert torch.equal(inside, ImageViews()(alone, ADDRESS)[1]["image"])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channel_counts_skip_what_needs_rgb_and_say_so_once(
    channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    views = ImageViews(hue=0.0)
    with caplog.at_level(logging.WARNING):
        shapes = [views(batch(channels=channels), ADDRESS)[0]["image"].shape for _ in range(2)]
    assert shapes == [(12, channels, 10, 10)] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"Images have {channels} channels: skipped views.saturation, views.grey, which need 3 (red, green, "
        "blue); set to 0 what should not be here."
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_views", 0),
        ("flip", 1.1),
        ("jitter", -0.1),
        ("grey", math.nan),
        ("brightness", -1.0),
        ("contrast", math.inf),
        ("hue", 0.6),
        ("crop_scale", (0.5, 1.2)),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.9, 0.5)),
        ("crop_ratio", (1.0, math.inf)),
        ("blur_sigma", (0.0, 1.0)),
        ("size", 0),
        ("region", (0, -1, 4, 4)),
        ("region", (0, 0, 0, 4)),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RecipeError, match=f"views.{name}="):
        ImageViews(**{name: value})  # type: ignore[arg-type]


def test_a_region_that_leaves_the_picture_or_comes_with_a_size_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"views.region=\(0, 0, 11, 4\).*\(10, 10\) pixels"):
        ImageViews(region=(0, 0, 11, 4))(batch(), ADDRESS)
    with pytest.raises(RecipeError, match=r"views.size=8"):
        ImageViews(region=(0, 0, 4, 4), size=8)


def test_pictures_of_another_type_or_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"torch.int64: expected uint8, uint16 or floats"):
        ImageViews()({**batch(), "image": batch()["image"].long()}, ADDRESS)
    with pytest.raises(DataError, match=r"\(3, 10, 10\): expected \(batch, channels"):
        ImageViews()({**batch(), "image": batch()["image"][0]}, ADDRESS)
