from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from towers import Known, picture

from overtone.datasets import Pair
from overtone.errors import DataError, NumericalError
from overtone.evaluation.pairs import corrected, image_reader, pair_accuracy, wilson

TEXTS = {"right": (1.0, 0.0), "up": (0.0, 1.0), "both": (1.0, 1.0)}


def score(pairs: list[Pair], texts: dict[str, tuple[float, ...]] | None = None) -> tuple[int, int]:
    found = pair_accuracy(Known(texts or TEXTS), pairs, prompt="").all
    return found.right, found.ties


def pair(one: tuple[float, ...], other: tuple[float, ...], first: str, second: str) -> Pair:
    return Pair((picture(*one), picture(*other)), (first, second), "direction", ("1", "2"))


@pytest.mark.parametrize(
    ("first", "second", "right"),
    [("right", "up", 1), ("up", "right", 0), ("right", "right", 0), ("up", "up", 0)],
)
def test_a_pair_counts_only_if_both_statements_are_given_their_own_picture(
    first: str, second: str, right: int
) -> None:
    assert score([pair((3, 1), (1, 3), first, second)]) == (right, 0)


def test_the_length_of_an_embedding_does_not_matter() -> None:
    assert score([pair((0.03, 0.01), (100, 300), "right", "up")]) == (1, 0)


def test_a_tie_is_given_the_second_picture_and_counted() -> None:
    # Of the two statements, that of the second picture is then right and that of the first wrong.
    assert score([pair((3, 1), (1, 3), "right", "both")]) == (1, 1)
    assert score([pair((3, 1), (1, 3), "both", "up")]) == (0, 1)
    assert score([pair((2, 1), (2, 1), "right", "up")]) == (0, 2)


def test_what_half_precision_cannot_tell_apart_is_decided_in_float32() -> None:
    near = pair((1.0, 0.5), (1.0, 0.5002), "right", "up")
    one, other = (np.float16(1 / np.hypot(1, up)) for up in (0.5, 0.5002))
    assert one == other  # the cosines to "right": in half precision a tie, and the second picture the answer
    assert score([near]) == (1, 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert score([near]) == (1, 0)


def test_the_score_is_that_of_a_loop_over_pairs_and_statements_in_batches_of_any_size() -> None:
    g = torch.Generator().manual_seed(0)
    texts = {f"t{i}": tuple(torch.randn(5, generator=g).tolist()) for i in range(80)}
    pairs, vectors = [], []
    for i in range(40):
        one, other = torch.randn(2, 5, generator=g).tolist()
        names = (f"t{2 * i}", f"t{2 * i + 1}")
        pairs.append(Pair((picture(*one), picture(*other)), names, f"p{i % 3}"))
        vectors.append([np.array(one), np.array(other)])
    right = {f"p{k}": 0 for k in range(3)}
    for one_pair, images in zip(pairs, vectors, strict=True):
        answers = []
        for text in one_pair.texts:
            t = np.array(texts[text])
            cosine = [v @ t / np.linalg.norm(v) / np.linalg.norm(t) for v in images]
            probability = 1 / (1 + np.exp(100 * (cosine[1] - cosine[0])))
            answers.append(1 if probability > 0.5 else 2)
        right[one_pair.pattern] += answers == [1, 2]
    for batch_size in (1, 7, 64):
        found = pair_accuracy(Known(texts), pairs, prompt="", batch_size=batch_size)
        assert {name: s.right for name, s in found.patterns.items()} == right
        assert {name: s.n_pairs for name, s in found.patterns.items()} == {"p0": 14, "p1": 13, "p2": 13}
        assert (found.all.right, found.all.n_pairs) == (sum(right.values()), 40)
        assert found.mean == pytest.approx(
            np.mean([100 * right[f"p{k}"] / n for k, n in enumerate((14, 13, 13))])
        )


def test_the_prompt_stands_before_every_statement() -> None:
    encoder = Known({f"a photo of {name}": vector for name, vector in TEXTS.items()})
    pair_accuracy(encoder, [pair((3, 1), (1, 3), "right", "up")])
    assert encoder.asked == ["a photo of right", "a photo of up"]


@pytest.mark.parametrize(("right", "n"), [(0, 15), (6, 15), (15, 15), (1, 1), (70, 135)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_encoder_is_asked_in_eval_mode_and_left_as_it_was() -> None:
    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = torch.nn.Dropout(0.9).eval()
            self.live = torch.nn.Dropout(0.9)

        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.live.training
            assert not torch.is_grad_enabled()
            return cast(torch.Tensor, self.live(images.flatten(1)))

        def encode_text(self, texts: list[str]) -> torch.Tensor:
            return cast(torch.Tensor, self.live(torch.tensor([TEXTS[text] for text in texts])))

    module = Module()
    assert pair_accuracy(module, [pair((3, 1), (1, 3), "right", "up")], "").all.right == 1
    assert (module.training, module.live.training, module.frozen.training) == (True, True, False)


def test_what_cannot_be_scored_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="there are none"):
        pair_accuracy(Known(TEXTS), [])
    with pytest.raises(DataError, match=r"'2' has shape \(1, 1, 3\), '1' \(1, 1, 2\)"):
        score([pair((3, 1), (1, 3, 1), "right", "up")])
    with pytest.raises(NumericalError, match="first '2'"):
        score([pair((3, 1), (np.nan, 3), "right", "up")])
    with pytest.raises(NumericalError, match="zero, for 1 of a batch of 2, first '1'"):
        score([pair((0, 0), (1, 3), "right", "up")])
    files = Pair((Path("a.png"), Path("b.png")), ("right", "up"), "direction")
    with pytest.raises(DataError, match=r"a\.png is a file; give `read`"):
        score([files])


def test_files_are_brought_to_one_size_and_damaged_ones_named(tmp_path: Path) -> None:
    paths = tmp_path / "wide.png", tmp_path / "high.png"
    for path, size, colour in zip(paths, ((40, 20), (16, 30)), ("white", "black"), strict=True):
        Image.new("RGB", size, colour).save(path)

    class Brightness:
        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[1:] == (3, 8, 8)
            mean = images.float().mean((1, 2, 3)) / 255
            return torch.stack([mean, 1 - mean], 1)

        def encode_text(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0] if "snow" in text else [0.0, 1.0] for text in texts])

    files = Pair(paths, ("snow", "coal"), "colour")
    assert pair_accuracy(Brightness(), [files], read=image_reader(8)).all.right == 1
    paths[1].write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"high\.png cannot be read as an image"):
        pair_accuracy(Brightness(), [files], read=image_reader(8))


def test_corrections_are_found_by_the_content_of_a_picture_and_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.jpg" for i in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    pairs = [Pair((paths[i], paths[i + 1]), (f"{i} is so", f"{i + 1} is so"), "x") for i in (0, 2, 4)]
    digest = [hashlib.sha256(bytes([number])).hexdigest() for number in range(7)]
    mended = corrected(
        pairs, {digest[1]: "1 is not so", digest[4]: None, digest[6]: "?", digest[2]: "2 is so"}
    )
    assert [p.texts for p in mended.pairs] == [("0 is so", "1 is not so"), ("2 is so", "3 is so")]
    assert (mended.changed, mended.left_out, mended.unused) == (1, 1, 1)
    assert corrected(pairs, {}).pairs == pairs
