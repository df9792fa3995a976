from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overtone.contracts import Batch, Ids, Objective
from overtone.encoders import build_encoder
from overtone.errors import RecipeError
from overtone.methods import SimCLR
from overtone.objectives import IFM, HardNegatives
from overtone.rng import generator, seeded

B = 6


def _views(cell: list[int] | None = None) -> list[Batch]:
    ids = {"cell": torch.tensor(cell or [0] * B), "identity": torch.arange(B)}
    images = torch.rand(2, B, 3, 16, 16, generator=generator(0, "simclr"))
    return [{"image": image, **ids} for image in images]


def _method() -> SimCLR:
    with seeded(0, "simclr"):
        return SimCLR(build_encoder("small_cnn"), temperature=0.5, out_dim=8)


def _cross_entropy(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent as SimCLR's own code has it: a classification of 2B - 1 others."""
    z = F.normalize(z, dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = (torch.arange(len(z)) + len(z) // 2) % len(z)
    return F.cross_entropy(logits, partner)


def test_in_one_cell_the_loss_is_the_cross_entropy_of_naming_the_other_view() -> None:
    loss, z = _method().step(_views())
    torch.testing.assert_close(loss, _cross_entropy(z, 0.5))


def test_in_cells_of_their_own_the_loss_is_the_mean_over_the_cells() -> None:
    loss, z = _method().step(_views([0, 0, 0, 1, 1, 1]))
    halves = [_cross_entropy(z[[i, i + 1, i + 2, i + B, i + B + 1, i + B + 2]], 0.5) for i in (0, 3)]
    torch.testing.assert_close(loss, torch.stack(halves).mean())


@pytest.mark.parametrize("objective", [IFM(0.5), HardNegatives(0.5)])
def test_another_objective_takes_the_place_of_nt_xent(objective: Objective) -> None:
    method = SimCLR(build_encoder("small_cnn"), objective=objective, out_dim=8)
    loss, z = method.step(_views([0, 0, 0, 0, 1, 2]))
    cell, identity = torch.tensor([0, 0, 0, 0, 1, 2] * 2), torch.arange(B).repeat(2)
    partner, ids = torch.arange(2 * B).roll(B), Ids(cell, identity)
    torch.testing.assert_close(loss, objective(z, z, partner, ids, ids))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_a_temperature_beside_an_objective_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"temperature=0\.5: stands beside an objective"):
        SimCLR(build_encoder("small_cnn"), temperature=0.5, objective=IFM())


def test_z_holds_the_first_view_then_the_second() -> None:
    method, views = _method(), _views()
    _, z = method.step(views)
    torch.testing.assert_close(z[B:], method.projection_head(method.encoder(views[1])))


def test_the_gradient_reaches_every_parameter_of_encoder_and_head() -> None:
    method = _method()
    loss, _ = method.step(_views())
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize("n_views", [1, 3])
def test_another_number_of_views_than_two_is_refused(n_views: int) -> None:
    with pytest.raises(RecipeError, match=f"{n_views} of each batch, but simclr takes 2"):
        _method().step([_views()[0]] * n_views)
