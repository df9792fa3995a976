from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.encoders import BatchEncoder, Encoder, ImageEncoder, SeriesEncoder, as_encoder, build_encoder
from overtone.errors import DataError, RecipeError

POOL = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def pictures(channels: int = 3) -> Tensor:
    images = torch.randint(0, 256, (4, channels, 8, 8), generator=torch.Generator().manual_seed(0))
    return images.to(torch.uint8)


def test_pictures_are_normalised_by_channel() -> None:
    encoder = ImageEncoder(POOL, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0])
    mean = pictures().double().mean((2, 3)) / 255
    expected = (mean - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(encoder({"image": pictures()}), expected.float())


def test_8_bit_pictures_and_the_same_as_floats_give_the_same_bits() -> None:
    encoder = build_encoder("small_cnn").eval()
    assert torch.equal(encoder({"image": pictures()}), encoder({"image": pictures() / 255}))


def test_16_bit_pictures_are_divided_by_65535() -> None:
    encoder, wide = (
        ImageEncoder(POOL, mean=[0.0] * 3, std=[1.0] * 3),
        (pictures().int() * 257).to(torch.uint16),
    )
    torch.testing.assert_close(encoder({"image": wide}), encoder({"image": pictures()}))


def test_an_encoder_in_double_precision_works_in_double_precision() -> None:
    encoder = build_encoder("small_cnn").double()
    assert encoder({"image": pictures()}).dtype == torch.float64


def test_finding_the_width_leaves_no_trace() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), POOL)
    backbone[1].eval()
    modes = [part.training for part in backbone.modules()]
    before, state = {k: v.clone() for k, v in backbone.state_dict().items()}, torch.get_rng_state()
    assert ImageEncoder(backbone, mean=[0.5] * 3, std=[0.5] * 3).dim == 4
    assert [part.training for part in backbone.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_backbone_that_returns_another_shape_is_refused_with_the_shape() -> None:
    with pytest.raises(
        RecipeError, match=r"Conv2d returned \(2, 5, 64, 64\) .* expected embeddings of shape"
    ):
        ImageEncoder(nn.Conv2d(3, 5, 1), mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(RecipeError, match=r"Conv2d failed on pictures of 2 x 2 pixels: .*dim="):
        ImageEncoder(nn.Conv2d(3, 5, 3), mean=[0.5] * 3, std=[0.5] * 3, image_size=(2, 2))


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.5, 0.5]), ([], []), ([0.5], [0.0])])
def test_a_mean_and_std_that_do_not_fit_are_refused(mean: list[float], std: list[float]) -> None:
    with pytest.raises(RecipeError, match="expected one of each a channel, std above 0"):
        ImageEncoder(POOL, mean=mean, std=std)


def test_a_batch_of_other_channels_or_without_pictures_is_refused() -> None:
    encoder = build_encoder("small_cnn")
    with pytest.raises(DataError, match="have 1 channels: the encoder was built for 3"):
        encoder({"image": pictures(1)})
    with pytest.raises(DataError, match=r"keys \['series'\]: this encoder expects `image`"):
        encoder({"series": pictures()})


def test_as_encoder_wraps_a_module_of_pictures_and_leaves_an_encoder_alone() -> None:
    encoder = as_encoder(POOL, mean=[0.5], std=[0.1])
    assert isinstance(encoder, ImageEncoder)
    assert (encoder.dim, encoder.spec, as_encoder(encoder)) == (1, None, encoder)
    example = {"image": torch.zeros(2, 5, 6, 7)}
    assert as_encoder(nn.Flatten(), example=example).dim == 5 * 6 * 7


class WordBag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(10, 6)

    def forward(self, batch: Batch) -> Tensor:
        pooled: Tensor = self.words(batch["text"])
        return pooled


def test_as_encoder_gives_the_batch_to_a_module_of_another_modality() -> None:
    example = {"text": torch.tensor([[1, 2], [3, 4]]), "index": torch.arange(2)}
    encoder = as_encoder(WordBag(), "text", example=example)
    assert isinstance(encoder, BatchEncoder)
    assert (encoder.dim, encoder.spec) == (6, None)
    assert encoder(example).shape == (2, 6)
    with pytest.raises(RecipeError, match=r"width of WordBag's embeddings is unknown.*`text`"):
        as_encoder(WordBag(), "text")


def series(padding: int) -> Batch:
    values = torch.randn(3, 13, 2, generator=torch.Generator().manual_seed(0))
    length = torch.tensor([13, 1, 6])
    values *= (torch.arange(13) < length[:, None])[:, :, None]
    return {"series": nn.functional.pad(values, (0, 0, 0, padding)), "length": length}


@pytest.mark.parametrize("training", [True, False])
def test_embeddings_of_series_do_not_depend_on_the_padding(training: bool) -> None:
    torch.manual_seed(0)
    encoder = SeriesEncoder(2, widths=(8, 16)).train(training)
    for padding in (1, 2, 7, 50):
        torch.testing.assert_close(encoder(series(padding)), encoder(series(0)), atol=1e-6, rtol=0)
    alone = {key: value[2:, :6] if key == "series" else value[2:] for key, value in series(0).items()}
    torch.testing.assert_close(encoder(alone), encoder(series(0))[2:], atol=1e-6, rtol=0)


def test_an_encoder_is_a_module_with_a_width_and_a_spec() -> None:
    for encoder in (build_encoder("small_cnn"), SeriesEncoder(1)):
        assert isinstance(encoder, Encoder)
        assert encoder.dim == 128
        assert encoder.spec is not None
