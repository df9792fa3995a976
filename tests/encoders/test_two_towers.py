from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from overtone.encoders import TwoTowerEncoder, build_encoder, load_encoder, save_encoder, trainable
from overtone.encoders.two_towers import hashed_words
from overtone.errors import DataError, RecipeError
from overtone.integration import JointEncoder
from overtone.methods import CLIP
from overtone.optim import build_optimizer

IMAGES = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TEXTS = ["a red square", "two blue dots", "a red square"]


def _towers(**arguments: Any) -> TwoTowerEncoder:
    towers = build_encoder("small_clip", width=8, **arguments)
    assert isinstance(towers, TwoTowerEncoder)
    return towers.eval()


@pytest.mark.parametrize(("embeds", "dim"), [("image", 8), ("text", 8), ("both", 16)])
def test_what_stands_for_a_sample_is_what_was_asked_for(embeds: str, dim: int) -> None:
    towers = _towers(embeds=embeds)
    image, text = towers.encode_image(IMAGES), towers.encode_text(TEXTS)
    expected = {"image": image, "text": text, "both": torch.cat([F.normalize(image), F.normalize(text)], 1)}
    found = towers({"image": IMAGES, "text": TEXTS})
    assert towers.dim == found.shape[1] == dim
    torch.testing.assert_close(found, expected[embeds])
    torch.testing.assert_close(towers({"image": IMAGES}), image)
    torch.testing.assert_close(towers({"text": TEXTS}), text)


def test_equal_texts_have_equal_features_whatever_stands_beside_them() -> None:
    features = _towers().encode_text(TEXTS)
    torch.testing.assert_close(features[0], features[2])
    torch.testing.assert_close(features[:1], _towers_with_the_same_weights().encode_text(TEXTS[:1]))


def _towers_with_the_same_weights() -> TwoTowerEncoder:
    torch.manual_seed(0)
    return _towers()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_words_keep_their_rows_in_every_process() -> None:
    assert hashed_words("A red dot", 8192) == (2298, 2317, 6208)


def test_what_has_no_words_still_has_features() -> None:
    assert torch.isfinite(_towers().encode_text(["!?", "", "a"])).all()


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    towers = _towers()
    save_encoder(towers, tmp_path)
    again = load_encoder(tmp_path)
    torch.testing.assert_close(
        again({"image": IMAGES, "text": TEXTS}), towers({"image": IMAGES, "text": TEXTS})
    )


def test_joined_stages_have_both_towers() -> None:
    stages = [_towers(), _towers()]
    for normalise in ("each", "once"):
        joint = JointEncoder(stages, normalise=normalise)
        for found, parts in (
            (joint.encode_image(IMAGES), [stage.encode_image(IMAGES) for stage in stages]),
            (joint.encode_text(TEXTS), [stage.encode_text(TEXTS) for stage in stages]),
        ):
            if normalise == "each":
                expected = torch.cat([F.normalize(part) for part in parts], 1)
            else:
                expected = F.normalize(torch.cat(parts, 1))
            torch.testing.assert_close(found, expected)


def test_joined_encoders_with_one_tower_have_no_text_features() -> None:
    with pytest.raises(RecipeError, match="two towers"):
        JointEncoder([build_encoder("small_cnn")]).encode_text(TEXTS)


@pytest.mark.parametrize("name", ["small_clip", "open_clip:ViT-S-32-alt"])
def test_a_tower_is_locked_by_the_names_of_the_other(name: str) -> None:
    if name.startswith("open_clip"):
        pytest.importorskip("open_clip", reason="open_clip is not installed")
    towers = build_encoder(name, image_size=32)
    assert isinstance(towers, TwoTowerEncoder)
    trainable(towers, ["image_tower.*", "logit_scale"])
    method = CLIP(towers).train()
    optimizer = build_optimizer(method, name="adamw", lr=1e-3, weight_decay=0.1)
    before = {name: value.clone() for name, value in towers.named_parameters()}
    ids = {"cell": torch.zeros(3).long(), "identity": torch.tensor([0, 1, 0])}
    method.step([{"image": IMAGES, **ids}, {"text": TEXTS, **ids}])[0].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    moved = {
        name.partition(".")[0] for name, value in towers.named_parameters() if (value != before[name]).any()
    }
    assert moved == {"image_tower", "logit_scale"}
    assert not any(part.training for part in towers.text_tower.modules())


def test_with_weights_a_cosine_is_the_mean_of_the_stages_cosines_by_their_squares() -> None:
    stages, weights = [_towers(), _towers(), _towers()], [2.0, 0.5, 1.0]
    joint = JointEncoder(stages, weights=weights)

    def cosines(towers: Any) -> torch.Tensor:
        images, texts = towers.encode_image(IMAGES), towers.encode_text(TEXTS)
        return F.cosine_similarity(images[:, None], texts[None], dim=2)

    expected = sum(w**2 * cosines(stage) for w, stage in zip(weights, stages, strict=True)) / 5.25
    torch.testing.assert_close(cosines(joint), expected)


def test_a_batch_of_neither_is_refused() -> None:
    with pytest.raises(DataError, match=r"\['series'\]"):
        _towers()({"series": torch.zeros(2, 3)})
    with pytest.raises(RecipeError, match="embeds='sound'"):
        _towers(embeds="sound")


def test_a_model_of_open_clip_gives_what_open_clip_gives(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    torch.manual_seed(0)
    towers = build_encoder("open_clip:ViT-S-32-alt", image_size=32)
    assert isinstance(towers, TwoTowerEncoder)
    towers.eval()
    torch.manual_seed(0)
    theirs = open_clip.create_model("ViT-S-32-alt", force_image_size=32, force_custom_text=True).eval()
    theirs.visual.load_state_dict(towers.image_tower.backbone.state_dict())  # type: ignore[union-attr]
    theirs.text.load_state_dict(towers.text_tower.transformer.state_dict())  # type: ignore[union-attr]
    mean, std = (torch.tensor(v)[:, None, None] for v in (theirs.visual.image_mean, theirs.visual.image_std))
    with torch.no_grad():
        images = theirs.encode_image((IMAGES / 255 - mean) / std)
        texts = theirs.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")(TEXTS))
        torch.testing.assert_close(towers.encode_image(IMAGES), images)
        torch.testing.assert_close(towers.encode_text(TEXTS), texts)
    assert float(towers.logit_scale.detach()) == pytest.approx(float(theirs.logit_scale))
    save_encoder(towers, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load_encoder(tmp_path).encode_text(TEXTS), texts)  # type: ignore[operator]


def test_names_that_open_clip_does_not_know_are_refused_with_a_guess() -> None:
    pytest.importorskip("open_clip", reason="open_clip is not installed")
    with pytest.raises(RecipeError, match="ViT-B-32"):
        build_encoder("open_clip:ViT-B32")
    with pytest.raises(RecipeError, match=r"encoder\.tag: is missing.*openai"):
        build_encoder("open_clip:ViT-B-32", pretrained=True)
    with pytest.raises(RecipeError, match="tag='opnai'"):
        build_encoder("open_clip:ViT-B-32", pretrained=True, tag="opnai")
