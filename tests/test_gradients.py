from __future__ import annotations

import pytest
import torch
from test_distributed import CPU, methods, views
from tiny import Flat
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.encoders import build_encoder
from overtone.errors import RecipeError
from overtone.gradients import gradients_of
from overtone.methods import SimCLR

METHODS = {name: method for name, method in methods() if hasattr(method, "project")}


def _gradients(method: nn.Module, micro_batch_size: int | None = None) -> dict[str, Tensor]:
    method.zero_grad()
    loss, z = gradients_of(method, "fp32", CPU, micro_batch_size)(views())
    return {"loss": loss, "z": z} | {
        name: parameter.grad.clone()
        for name, parameter in method.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [1, 5, 12])
def test_in_parts_of_any_size_the_gradients_are_those_of_the_whole_batch(name: str, size: int) -> None:
    whole, parts = _gradients(METHODS[name]), _gradients(METHODS[name], size)
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-10, atol=1e-12)


class Dropping(Flat):
    """Notes what it gave, in training with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers.append(nn.Dropout(0.5))
        self.given: list[Tensor] = []

    def forward(self, batch: Batch) -> Tensor:
        self.given.append(super().forward(batch).detach())
        return super_of(self, batch, self.given[-1])


def super_of(encoder: Flat, batch: Batch, given: Tensor) -> Tensor:
    """The same values with a graph: the mask is read off what was given."""
    inner = encoder.layers[:-1](batch["series"])
    found: Tensor = inner * (given / inner.detach())
    return found


def test_dropout_falls_alike_in_both_passes_and_the_gradients_are_those_of_the_same_masks() -> None:
    torch.manual_seed(0)
    method = SimCLR(Dropping(), out_dim=4, norm="none").double()
    encoder = method.encoder
    assert isinstance(encoder, Dropping)
    torch.manual_seed(3)
    found = _gradients(method, 4)
    first, again = encoder.given[:6], encoder.given[6:]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0] == 0, first[3] == 0)  # two views fall differently
    # One graph over the same masks is the oracle.
    masks = [torch.cat(first[:3]), torch.cat(first[3:])]
    method.zero_grad()
    z = [
        method.projection_head(super_of(encoder, view, mask))
        for view, mask in zip(views(), masks, strict=True)
    ]
    method.contrast(z, views()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-10, atol=1e-12)


def test_the_random_stream_goes_on_as_if_everything_had_been_computed_once() -> None:
    method = SimCLR(Dropping(), out_dim=4, norm="none").double()
    torch.manual_seed(3)
    for view in views():
        for part in view["series"].split(4):
            method.encoder({"series": part})
    expected = torch.rand(2)
    torch.manual_seed(3)
    _gradients(method, 4)
    assert torch.equal(torch.rand(2), expected)


def test_live_batch_norm_in_parts_is_an_error_that_names_the_choices() -> None:
    method = SimCLR(build_encoder("small_cnn"))
    with pytest.raises(RecipeError, match=r"micro_batch_size=4: the batch norms .*method\.norm=none.*leave"):
        gradients_of(method, "fp32", CPU, 4)


def test_a_frozen_batch_norm_can_be_computed_in_parts() -> None:
    torch.manual_seed(0)
    method = SimCLR(build_encoder("small_cnn"), norm="none")
    method.encoder.eval()
    ids = {"index": torch.arange(6), "cell": torch.zeros(6).long(), "identity": torch.arange(6)}
    views = [{**ids, "image": torch.rand(6, 3, 16, 16)} for _ in range(2)]
    whole, _ = gradients_of(method, "fp32", CPU)(views)
    parts, _ = gradients_of(method, "fp32", CPU, 4)(views)
    torch.testing.assert_close(parts, whole)


def test_a_method_with_a_step_alone_cannot_be_computed_in_parts() -> None:
    class Whole(nn.Module):
        def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
            raise AssertionError

    with pytest.raises(RecipeError, match="Whole has a step alone"):
        gradients_of(Whole(), "fp32", CPU, 4)
