from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from overtone.contracts import Address, Batch
from overtone.datasets import tones
from overtone.encoders import SeriesEncoder, SeriesTransformer
from overtone.errors import RecipeError
from overtone.rng import generator, seeded
from overtone.strategies import TimeDRL
from overtone.strategies.timedrl import agreement, patch_error
from overtone.views import SameViews


def _z(*shape: int, name: str = "z") -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, "timedrl", name))


def _views(n: int = 16) -> list[Batch]:
    dataset = tones(n)
    return SameViews()(dataset.collate([dataset[i] for i in range(n)]), Address(0, 0, 0))


def _made(dropout: float = 0.1, **weights: float) -> TimeDRL:
    with seeded(0, "timedrl"):
        encoder = SeriesTransformer(1, dim=16, layers=1, heads=2, dropout=dropout)
        return TimeDRL(encoder, dropout=dropout, **weights)


def test_agreement_is_the_loop_over_samples_and_directions() -> None:
    i, q = (_z(5, 3), _z(5, 3, name="i2")), (_z(5, 3, name="q1"), _z(5, 3, name="q2"))
    total = 0.0
    for row in range(5):
        for one, other in ((0, 1), (1, 0)):
            cosine = (i[one][row] @ q[other][row]) / (i[one][row].norm() * q[other][row].norm())
            total -= float(cosine) / (2 * 5)
    assert_close(agreement(i, q), torch.tensor(total, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_no_gradient_of_the_agreement_reaches_the_embedding_that_is_predicted() -> None:
    i, q = _z(4, 3).requires_grad_(), _z(4, 3, name="q").requires_grad_()
    agreement((i, i), (q, q)).backward()  # type: ignore[no-untyped-call]
    assert i.grad is None
    assert q.grad is not None
    assert q.grad.abs().sum() > 0


def test_the_error_is_the_loop_over_the_patches_that_are_there() -> None:
    predicted, patches = _z(3, 4, 2), _z(3, 4, 2, name="patches")
    counts = [4, 1, 2]
    present = torch.arange(4) < torch.tensor(counts)[:, None]
    errors = [
        float((predicted[b, p, v] - patches[b, p, v]) ** 2)
        for b in range(3)
        for p in range(counts[b])
        for v in range(2)
    ]
    expected = torch.tensor(sum(errors) / len(errors), dtype=torch.float64)
    assert_close(patch_error(predicted, patches, present), expected, rtol=1e-12, atol=1e-12)
    assert patch_error(patches, patches, present) == 0


def test_without_dropout_the_loss_is_the_error_of_one_pass_less_the_cosine_to_its_own_prediction() -> None:
    method, views = _made(dropout=0.0, contrast=0.7), _views()
    loss, z = method.step(views)
    assert torch.equal(*z.chunk(2))
    one = method.encoder(views[0], parts=True)
    error = patch_error(method.decoder(one.tokens), one.patches, one.present)
    cosine = nn.functional.cosine_similarity(one.whole, method.predictor(one.whole)).mean()
    assert_close(loss, error - 0.7 * cosine)
    method.predict = 0.0
    assert_close(method.step(views)[0], -0.7 * cosine)


def test_with_dropout_two_passes_over_the_same_input_differ() -> None:
    one, two = _made().step(_views())[1].chunk(2)
    assert not torch.equal(one, two)


def test_without_negatives_the_embeddings_stay_apart() -> None:
    method, views = _made(), _views(32)
    optimizer = torch.optim.AdamW(method.parameters(), lr=2e-3)
    with seeded(0, "training"):
        first = float(method.step(views)[0].detach())
        for _ in range(25):
            optimizer.zero_grad()
            loss, z = method.step(views)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert float(loss.detach()) < first - 0.1
    # Of unit vectors spread over the sphere each coordinate deviates by 1 / sqrt(16) = 0.25.
    assert nn.functional.normalize(z, dim=1).std(0).mean() > 0.05


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(RecipeError, match=r"encoder\.name=series_transformer"):
        TimeDRL(SeriesEncoder(1))
    with pytest.raises(RecipeError, match=r"method\.contrast=-1"):
        _made(contrast=-1)
    with pytest.raises(RecipeError, match=r"method\.predict=-1"):
        _made(predict=-1)
    with pytest.raises(RecipeError, match=r"set views\.n_views=2"):
        _made().step(_views()[:1])
    with pytest.raises(RecipeError, match=r"views\.n_views"):
        SameViews(n_views=0)
