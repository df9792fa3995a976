from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from overtone.contracts import Address, Batch
from overtone.encoders import TwoTowerEncoder, build_encoder
from overtone.errors import RecipeError
from overtone.methods import CLIP
from overtone.rng import generator, seeded
from overtone.strategies.convirt import ConVIRT, both_ways
from overtone.views import ReportViews

B = 6


def _logits() -> tuple[Tensor, Tensor]:
    draw = generator(0, "convirt")
    images, texts = (F.normalize(torch.randn(B, 4, dtype=torch.float64, generator=draw)) for _ in range(2))
    return images @ texts.T / 0.1, texts @ images.T / 0.1


def _views(cell: list[int], sentence: list[int] | None = None) -> list[Batch]:
    ids = {"index": torch.arange(B), "cell": torch.tensor(cell), "identity": torch.arange(B)}
    images = torch.rand(B, 3, 16, 16, generator=generator(1, "convirt"))
    text: Batch = {**ids, "text": [f"{n} dots of colour {n % 4}" for n in range(B)]}
    drawn = {} if sentence is None else {"sentence": torch.tensor(sentence)[:, None]}
    return [{**ids, "image": images}, {**text, **drawn}]


def _method(**arguments: float) -> ConVIRT:
    with seeded(0, "convirt"):
        encoder = build_encoder("small_clip", width=8)
        assert isinstance(encoder, TwoTowerEncoder)
        return ConVIRT(encoder.eval(), out_dim=5, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_where_all_may_repel_it_is_two_cross_entropies_weighted_by_lambda(share: float) -> None:
    images, texts = _logits()
    own, eye = torch.arange(B), torch.eye(B, dtype=torch.bool)
    expected = share * F.cross_entropy(images, own) + (1 - share) * F.cross_entropy(texts, own)
    assert_close(both_ways(images, texts, eye, ~eye, share), expected, rtol=1e-12, atol=1e-12)
    swapped = both_ways(texts, images, eye, ~eye, 1 - share)
    assert_close(swapped, expected, rtol=1e-12, atol=1e-12)


def test_at_one_half_without_heads_it_is_clip_of_a_fixed_temperature() -> None:
    method, views = _method(image_to_text=0.5), _views([0, 0, 0, 0, 1, 1])
    method.image_head, method.text_head = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
    assert_close(method.step(views)[0], CLIP(method.encoder, temperature=0.1).step(views)[0])


def test_in_cells_with_equal_sentences_it_is_a_loop_over_the_pairs_that_are_left() -> None:
    cell, sentence = [0, 0, 0, 0, 1, 1], [7, 8, 7, 9, 7, 7]
    method = _method()
    loss, z = method.step(_views(cell, sentence))
    images, texts = F.normalize(z)[:B], F.normalize(z)[B:]
    total = torch.zeros(())
    for rows, columns, weight in ((images, texts, 0.75), (texts, images, 0.25)):
        for i in range(B):
            rest = [j for j in range(B) if cell[i] == cell[j] and sentence[i] != sentence[j]]
            logits = torch.stack([rows[i] @ columns[j] / 0.1 for j in [i, *rest]])
            total = total - weight * logits.log_softmax(0)[0] / B
    assert_close(loss, total)


def test_alone_in_their_cells_nothing_repels_and_all_stays_finite() -> None:
    method = _method()
    loss, _ = method.step(_views(list(range(B))))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_each_head_learns() -> None:
    method = _method()
    method.step(_views([0] * B))[0].backward()  # type: ignore[no-untyped-call]
    for head in (method.image_head, method.text_head):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters() if p.ndim > 1)


def test_a_report_gives_other_sentences_from_step_to_step_whatever_batch_it_is_in() -> None:
    reports = ["one. two. three.", "four", "five. six."]
    batch = {"index": torch.arange(3), "image": torch.zeros(3, 3, 8, 8), "text": reports}
    views = ReportViews(sentences=2)
    drawn = [views(batch, Address(0, 0, step))[1] for step in range(20)]
    assert {text for view in drawn for text in view["text"][:2]} == {"one", "two", "three"}
    assert all(view["text"][0] != view["text"][1] and view["text"][2:4] == ["four"] * 2 for view in drawn)
    assert all(sorted(view["text"][4:]) == ["five", "six"] for view in drawn)
    assert len({tuple(view["text"]) for view in drawn}) > 5
    alone = {"index": torch.arange(1), "image": torch.zeros(1, 3, 8, 8), "text": reports[:1]}
    assert views(alone, Address(0, 0, 3))[1]["text"] == drawn[3]["text"][:2]


def test_sentences_have_one_number_if_and_only_if_they_are_equal() -> None:
    batch = {"index": torch.arange(3), "image": torch.zeros(3, 3, 8, 8), "text": ["a", " a ", "b"]}
    numbers = ReportViews()(batch, Address(0, 0, 0))[1]["sentence"]
    assert numbers[0] == numbers[1] != numbers[2]


def test_what_it_cannot_use_is_refused() -> None:
    with pytest.raises(RecipeError, match="two towers, but ImageEncoder has one"):
        ConVIRT(build_encoder("small_cnn"))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"image_to_text=1\.5"):
        _method(image_to_text=1.5)
    with pytest.raises(RecipeError, match="temperature=0"):
        _method(temperature=0.0)
    views = _views([0] * B)
    views[1]["text"] = views[1]["text"] * 2
    with pytest.raises(RecipeError, match=r"views\.sentences=1"):
        _method().step(views)
    with pytest.raises(RecipeError, match=r"views\.sentences=0"):
        ReportViews(sentences=0)
