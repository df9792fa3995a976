from __future__ import annotations

import copy
import json
import math
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from overtone import load
from overtone.encoders import TwoTowerEncoder, add_lora, build_encoder, load_encoder, merge_lora, save_encoder
from overtone.errors import RecipeError, RunError
from overtone.methods import SigLIP
from overtone.progress import Silent
from overtone.readers import reader_of
from overtone.recipe import parse, resolved
from overtone.study import Study, carry_out

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TEXTS = ["a red square", "Two blue dots!", "", "a word and another and one more that is cut"]
IMAGES = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SIDE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PICTURES = {**SIDE, "image_size": 16, "patch_size": 8}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def _letters() -> dict[str, int]:
    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz!" for end in ("", "</w>")]
    return {token: row for row, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}


def _clip(folder: Path) -> Any:
    tokenizer = transformers.CLIPTokenizer(vocab=_letters(), merges=[])
    text = {**SIDE, "vocab_size": 56, "max_position_embeddings": 12, "bos_token_id": 54, "eos_token_id": 55}
    config = transformers.CLIPConfig(text_config=text, vision_config=PICTURES, projection_dim=10)
    return _written(folder, transformers.CLIPModel(config), tokenizer, transformers.CLIPImageProcessor)


def _siglip(folder: Path) -> Any:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    folder.mkdir(exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(TEXTS).lower()] * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=30,
        pad_id=3,
        minloglevel=2,
    )
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"))
    text = {**SIDE, "vocab_size": 30, "max_position_embeddings": 12}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
    config = transformers.SiglipConfig(text_config=text, vision_config=PICTURES)
    model = transformers.SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(4.5)
        model.logit_bias.fill_(-12.5)
    return _written(folder, model, tokenizer, transformers.SiglipImageProcessor)


def _written(folder: Path, model: Any, tokenizer: Any, processor: Any) -> Any:
    """Writes what a model's folder on the hub holds, and gives the model."""
    size = {"height": 16, "width": 16}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor(image_mean=MEAN, image_std=STD, size=size, crop_size=size).save_pretrained(folder)
    return model.eval()


MAKERS = {"clip": _clip, "siglip": _siglip}


@pytest.fixture(params=sorted(MAKERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def theirs(kind: str, tmp_path: Path) -> Any:
    torch.manual_seed(0)
    return MAKERS[kind](tmp_path / "model")


def _towers(folder: Path, **arguments: Any) -> TwoTowerEncoder:
    towers = build_encoder(f"hf:{folder}", **arguments)
    assert isinstance(towers, TwoTowerEncoder)
    return towers.eval()


def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def _features(model: Any, folder: Path, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As the model's own page has it: its processor's tokens, padded to its length."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    if model.config.model_type == "siglip":
        del inputs["attention_mask"]
    with torch.no_grad():
        images, texts = model.get_image_features(pixels), model.get_text_features(**inputs)
    return images.pooler_output, texts.pooler_output


def test_a_pretrained_model_gives_what_transformers_gives_from_the_same_files(
    theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_network(monkeypatch)
    towers = _towers(tmp_path / "model", pretrained=True)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "model")
    images, texts = _features(theirs, tmp_path / "model", processor(IMAGES, return_tensors="pt").pixel_values)
    with torch.no_grad():
        torch.testing.assert_close(towers.encode_image(IMAGES), images, atol=1e-5, rtol=0)
        torch.testing.assert_close(towers.encode_text(TEXTS), texts, atol=1e-5, rtol=0)
    assert towers.dim == images.shape[1]
    assert torch.equal(towers.logit_scale, theirs.logit_scale.reshape(()))
    if theirs.config.model_type == "siglip":
        assert towers.logit_bias is not None
        assert torch.equal(towers.logit_bias, theirs.logit_bias.reshape(()))


def test_it_comes_back_from_its_file_alone(
    theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers = _towers(tmp_path / "model", pretrained=True, embeds="both")
    (tmp_path / "kept").mkdir()
    save_encoder(towers, tmp_path / "kept")
    shutil.rmtree(tmp_path / "model")
    _no_network(monkeypatch)
    batch = {"image": IMAGES, "text": TEXTS}
    for again in (load_encoder(tmp_path / "kept"), copy.deepcopy(towers)):
        with torch.no_grad():
            assert torch.equal(again(batch), towers(batch))
    assert str(tmp_path) not in (tmp_path / "kept" / "encoder.json").read_text()


def test_untrained_it_is_the_same_configuration_with_other_weights(theirs: Any, tmp_path: Path) -> None:
    given, drawn = (_towers(tmp_path / "model", pretrained=each).state_dict() for each in (True, False))
    assert {name: value.shape for name, value in given.items()} == {n: v.shape for n, v in drawn.items()}
    name = "text_tower.transformer.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(given[name], drawn[name])


def test_pictures_of_another_size_interpolate_the_positions(theirs: Any, tmp_path: Path) -> None:
    towers = _towers(tmp_path / "model", pretrained=True, image_size=24)
    large = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    pixels = (large - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        expected = theirs.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
        torch.testing.assert_close(towers.encode_image(large), expected, atol=1e-5, rtol=0)


def test_pictures_smaller_than_a_patch_and_other_statistics_are_refused(tmp_path: Path) -> None:
    _clip(tmp_path / "model")
    with pytest.raises(RecipeError, match="pictures of 7 x 7 pixels, but its patches have 8"):
        _towers(tmp_path / "model", image_size=7)
    with pytest.raises(RecipeError, match="has statistics of its own"):
        _towers(tmp_path / "model", mean=[0.5] * 3)


def test_siglip_goes_on_from_the_scale_and_the_bias_of_a_model_made_for_it(tmp_path: Path) -> None:
    _siglip(tmp_path / "model")
    trained, drawn = (_towers(tmp_path / "model", pretrained=each) for each in (True, False))
    for towers, expected in ((trained, (4.5, -12.5)), (drawn, (math.log(10), -10.0))):
        method = SigLIP(towers)
        found = float(towers.logit_scale.detach()), float(method.logit_bias.detach())
        assert found == pytest.approx(expected)
        assert [
            name for name, _ in method.named_parameters() if "bias" in name[-10:] and "logit" in name
        ] == ["encoder.logit_bias"]
    method = SigLIP(trained, bias=-3.0)
    found = float(trained.logit_scale.detach()), float(method.logit_bias.detach())
    assert found == pytest.approx((math.log(10), -3.0))


def test_a_run_of_two_stages_trains_saves_and_loads(
    kind: str, theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_network(monkeypatch)
    monkeypatch.chdir(tmp_path)
    recipe = {
        "data": {"source": "captioned_scenes", "n": 48, "image_size": 32},
        "encoder": {"name": "hf:./model", "pretrained": True},
        "views": {"name": "image_text"},
        "method": {"name": kind},
        "train": {"epochs": 1, "batch_size": 16, "trainable": ["image_tower.*", "logit_scale"]},
        "stages": [{"epochs": 0}, {"cell_size": 12}],
        "threads": 1,
        "loggers": [],
    }
    study = Study(resolved(parse(recipe)), tmp_path / "run")
    study.save()
    assert study.recipe.encoder["name"] == f"hf:{tmp_path / 'model'}"
    carry_out(study.jobs(), Silent(), 1)
    given = _towers(tmp_path / "model", pretrained=True)
    shutil.rmtree(tmp_path / "model")
    joint = load(tmp_path / "run")
    first, second = joint.stages
    assert isinstance(first, TwoTowerEncoder)
    assert isinstance(second, TwoTowerEncoder)
    with torch.no_grad():
        assert torch.equal(first.encode_image(IMAGES), given.encode_image(IMAGES))
        assert torch.equal(second.encode_text(TEXTS), given.encode_text(TEXTS))
        assert not torch.equal(second.encode_image(IMAGES), given.encode_image(IMAGES))
        whole = load_encoder(tmp_path / "run" / "stage-1" / "encoder")
        assert torch.equal(whole({"image": IMAGES}), second.encode_image(IMAGES))


def test_what_is_no_clip_and_no_siglip_is_refused_with_what_is_taken(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"type 'bert'; expected CLIP or SigLIP"):
        build_encoder(f"hf:{tmp_path}")
    with pytest.raises(RecipeError, match=r"hf:.*nowhere\" cannot be built"):
        build_encoder(f"hf:{tmp_path}/nowhere")


def test_weights_or_tokens_that_are_not_the_models_are_refused(theirs: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    config = json.loads((folder / "config.json").read_text())
    for side, field, value, complaint in (
        ("vision_config", "num_hidden_layers", 3, "its weights lack 16 of the model's, first vision"),
        ("text_config", "vocab_size", 20, r"its tokenizer has \d+ tokens and its text tower 20"),
    ):
        wrong = {**config, side: {**config[side], field: value}}
        (folder / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(RecipeError, match=complaint):
            _towers(folder, pretrained=field != "vocab_size")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda spec: spec.pop("kept"), "expected the name and arguments"),
        (lambda spec: spec["kept"]["config"].update(model_type="bert"), "model_type 'bert'"),
        (lambda spec: spec["kept"]["tokenizer"].update(kind="pipeline"), "no tokenizer that was kept"),
        (lambda spec: spec["kept"]["tokenizer"]["files"].update({"../x": ""}), "no tokenizer that was kept"),
    ],
)
def test_a_file_can_neither_fetch_a_model_nor_name_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, complaint: str
) -> None:
    _clip(tmp_path / "model")
    save_encoder(_towers(tmp_path / "model"), tmp_path)
    description = json.loads((tmp_path / "encoder.json").read_text())
    change(description["spec"])
    (tmp_path / "encoder.json").write_text(json.dumps(description))
    _no_network(monkeypatch)
    with pytest.raises(RunError, match=complaint):
        load_encoder(tmp_path)


def test_adapters_stand_beside_its_linear_layers_and_merge(theirs: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    towers = _towers(tmp_path / "model", pretrained=True)
    names = [name for name, _ in towers.named_parameters()]
    batch = {"image": IMAGES, "text": TEXTS}
    with torch.no_grad():
        before = towers(batch)
        chosen = add_lora(towers, ["*.self_attn.*_proj", "*.mlp.fc1"], rank=2)
        assert len(chosen) >= 2 * 2 * 5
        assert torch.equal(towers(batch), before)
        for name, parameter in towers.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.1)
        adapted = towers(batch)
        assert not torch.allclose(adapted, before)
        merge_lora(towers)
        torch.testing.assert_close(towers(batch), adapted, atol=1e-5, rtol=1e-5)
    assert [name for name, _ in towers.named_parameters()] == names


@pytest.mark.usefixtures("theirs")
def test_a_search_for_blind_pairs_shows_it_pictures_of_its_own_size(tmp_path: Path) -> None:
    assert reader_of(f"hf:{tmp_path / 'model'}").options["image_size"] == (16, 16)
