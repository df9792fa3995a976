from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from overtone.contracts import Batch
from overtone.encoders import PatchTowers, build_encoder
from overtone.errors import RecipeError
from overtone.methods.pairing import Pairing, pairing
from overtone.objectives.many_positives import cosines
from overtone.rng import generator, seeded
from overtone.strategies.radzero import RadZero, attended, both_ways

B, S = 5, 3


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, "radzero"))


def _ids(cell: list[int]) -> Batch:
    return {"index": torch.arange(B), "cell": torch.tensor(cell), "identity": torch.arange(B)}


def _loss(logits: Tensor, pairs: Pairing, keys: Tensor) -> Tensor:
    """Of one process, from the logits of all sentences (B S) with all pictures (B)."""
    return both_ways(logits.view(*keys.shape, -1), logits.T.reshape(B, B, -1), pairs, keys, keys)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 50.0])
def test_what_a_sentence_sees_is_the_loop_over_sentences_pictures_and_tokens(temperature: float) -> None:
    sentences, tokens = _random(4, 6), _random(3, 7, 6) * 3
    found = attended(sentences, tokens, temperature)
    for i in range(4):
        for b in range(3):
            v, t = F.normalize(tokens[b]), F.normalize(sentences[i], dim=0)
            a = torch.softmax(torch.stack([t @ one / temperature for one in v]), 0)
            assert a.sum().item() == pytest.approx(1)
            seen = torch.stack([weight * one for weight, one in zip(a, v, strict=True)]).sum(0)
            assert_close(found[i, b], torch.cosine_similarity(t, seen, 0), rtol=1e-12, atol=1e-12)


def test_of_equal_tokens_a_sentence_sees_their_cosine() -> None:
    sentences, pictures = _random(4, 6), _random(3, 6)
    found = attended(sentences, pictures[:, None].expand(-1, 5, -1), 0.07)
    assert_close(found, cosines(sentences, pictures), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", [[0] * B, [0, 0, 0, 1, 1], list(range(B))])
def test_both_directions_are_loops_over_each_sentence_against_what_may_repel_it(cell: list[int]) -> None:
    logits, keys = _random(B * S, B), torch.arange(B * S).view(B, S)
    keys[3, 1] = keys[0, 2]
    keys[1, 0] = keys[1, 1]  # a short text says it twice
    said, owner = keys.flatten().tolist(), [i // S for i in range(B * S)]
    total = []
    for i, b in enumerate(owner):
        others = [j for j in range(B) if j != b and cell[j] == cell[b] and said[i] not in keys[j].tolist()]
        total.append(-logits[i, [b, *others]].log_softmax(0)[0])
        negatives = [
            k
            for k in range(B * S)
            if owner[k] != b and cell[owner[k]] == cell[b] and said[k] not in keys[b].tolist()
        ]
        total.append(-logits[[i, *negatives], b].log_softmax(0)[0])
    found = _loss(logits, pairing(_ids(cell)), keys)
    assert_close(found, torch.stack(total).mean(), rtol=1e-12, atol=1e-12)


def test_with_one_sentence_a_picture_it_is_the_symmetric_cross_entropy_of_clip() -> None:
    logits, own = _random(B, B), torch.arange(B)
    found = _loss(logits, pairing(_ids([0] * B)), own[:, None])
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_saying_a_sentence_twice_changes_nothing_for_its_own_picture() -> None:
    logits, pairs = _random(B, B), pairing(_ids([0] * B))
    once = _own_column(logits, pairs, torch.arange(B)[:, None])
    twice = _own_column(logits.repeat_interleave(2, 0), pairs, torch.arange(B)[:, None].expand(-1, 2))
    # The others' sentences stand twice among the negatives, each picture's own never.
    exp = logits.exp()
    assert_close(once, -(exp.diag() / exp.sum(0)).log().mean())
    assert_close(twice, -(exp.diag() / (2 * exp.sum(0) - exp.diag())).log().mean())


def _own_column(logits: Tensor, pairs: Pairing, keys: Tensor) -> Tensor:
    """Twice the loss where naming pictures costs nothing."""
    free = torch.where(pairs.own, 1e9, 0.0).double()[:, None].expand(-1, keys.shape[1], -1)
    return 2 * both_ways(free, logits.T.reshape(B, B, -1), pairs, keys, keys)


def _method(**arguments: float) -> RadZero:
    with seeded(0, "radzero"):
        return RadZero(PatchTowers(width=8).eval(), **arguments)


def _views(cell: list[int]) -> list[Batch]:
    images = torch.rand(B, 3, 16, 16, generator=generator(1, "radzero"))
    text = {"text": [f"{n} dots" for n in range(B * S)], "sentence": torch.arange(B * S).view(B, S)}
    return [{**_ids(cell), "image": images}, {**_ids(cell), **text}]


def test_a_step_scales_the_logits_and_the_attention_by_one_learned_temperature() -> None:
    method, views = _method(), _views([0, 0, 0, 1, 1])
    loss, z = method.step(views)
    tokens = method.norm(method.encoder.encode_tokens(views[0]["image"]))
    logits = attended(z, tokens, 0.07) / 0.07
    assert_close(loss, _loss(logits, pairing(views[0]), views[1]["sentence"]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert method.encoder.logit_scale.grad is not None
    assert method.encoder.logit_scale.grad != 0
    assert method.encoder.logit_scale.exp().item() == pytest.approx(1 / 0.07)


def test_alone_in_their_cells_nothing_repels_and_all_stays_finite() -> None:
    method = _method()
    loss, _ = method.step(_views(list(range(B))))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_a_picture_is_embedded_as_the_mean_of_its_patches() -> None:
    towers = PatchTowers(width=8).eval()
    images = torch.rand(2, 3, 32, 32, generator=generator(2, "radzero"))
    tokens = towers.encode_tokens(images)
    assert tokens.shape == (2, 1 + 64, 8)
    assert_close(towers({"image": images, "text": ["a", "b"]}), tokens[:, 1:].mean(1))
    assert type(build_encoder(**(towers.spec or {}))) is PatchTowers


def test_what_it_cannot_use_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"encoder\.name=patch_towers"):
        RadZero(build_encoder("small_clip"))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="temperature=0"):
        _method(attention_temperature=0.0)
    views = _views([0] * B)
    del views[1]["sentence"]
    with pytest.raises(RecipeError, match=r"views\.name=report"):
        _method().step(views)
