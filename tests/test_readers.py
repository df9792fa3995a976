from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from overtone.encoders import build_encoder
from overtone.errors import RecipeError, RunError
from overtone.readers import Pixels, Reader, reader_of

PICTURES = {
    "index": torch.arange(2),
    "image": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
}


def read(reader: Reader) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(reader.module.eval()(PICTURES))


def test_a_random_model_is_the_same_each_time_and_another_than_its_reference() -> None:
    first, again = (reader_of("random:torchvision:resnet18") for _ in range(2))
    assert first.options == {"image_size": (224, 224), "channels": 3}
    assert torch.equal(read(first), read(again))
    untrained = first.untrained()
    assert untrained is not None
    assert not torch.equal(read(first), read(Reader(untrained, {})))


def test_given_weights_are_those_of_the_file(tmp_path: Path) -> None:
    model = resnet18()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    reader = reader_of("torchvision:resnet18", weights=tmp_path / "w.pt", image_size=64)
    model.fc = nn.Identity()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        expected = model.eval()((PICTURES["image"] - mean) / std)
    torch.testing.assert_close(read(reader), expected)
    assert reader.options["image_size"] == (64, 64)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(resnet18().state_dict(), tmp_path / "w.pt")
    with pytest.raises(RunError, match="expected finite weights that fit"):
        reader_of("small_cnn", weights=tmp_path / "w.pt")


def test_timm_says_which_pictures_it_was_made_for() -> None:
    pytest.importorskip("timm")
    reader = reader_of("random:timm:vit_tiny_patch16_224")
    assert reader.options["image_size"] == (224, 224)
    assert reader.untrained() is not None  # though no part of it could draw its position embeddings


def test_a_module_of_ones_own_may_say_its_size_and_be_drawn_anew() -> None:
    shown = reader_of("torch.nn:Flatten", image_size=8)
    assert shown.options == {"image_size": (8, 8), "channels": 3}
    assert isinstance(reader_of("random:torch.nn:Flatten", image_size=8).module, nn.Module)
    with pytest.raises(RecipeError, match="cannot be built with"):
        reader_of("torch.nn:Linear")


def test_options_that_do_not_go_with_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--image-size 64: goes with a model"):
        reader_of(str(tmp_path), image_size=64)


def test_centred_pixels_compare_as_a_correlation() -> None:
    one, other = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    rows = Pixels(centred=True)({"image": torch.stack([one, other])})
    cosine = torch.cosine_similarity(rows[0], rows[1], dim=0)
    expected = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
    torch.testing.assert_close(cosine, expected)


def test_encoders_that_are_built_in_keep_their_architecture() -> None:
    reader = reader_of("random:small_cnn")
    built = build_encoder("small_cnn")
    assert sum(p.numel() for p in reader.module.parameters()) == sum(p.numel() for p in built.parameters())
