from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from overtone.contracts import Batch
from overtone.encoders import SequenceTransformer
from overtone.encoders.sequences import words_of
from overtone.errors import RecipeError
from overtone.rng import generator, seeded


def _batch() -> Batch:
    return {"sequence": torch.randint(4, (3, 23), generator=generator(0, "sequence"))}


def _made(**arguments: int) -> SequenceTransformer:
    with seeded(0, "sequences"):
        return SequenceTransformer(dim=16, heads=2, **arguments).eval()


@pytest.mark.parametrize("k", [1, 3])
def test_a_word_is_the_number_that_its_symbols_spell(k: int) -> None:
    sequence = _batch()["sequence"]
    found = words_of(sequence, 4, k)
    for row, symbols in zip(found.tolist(), sequence.tolist(), strict=True):
        symbols += [symbols[-1]] * (k - 1)
        assert row == [int("".join(map(str, symbols[at : at + k])), 4) for at in range(23)]


@pytest.mark.parametrize("layer", [0, 1])
def test_a_change_before_a_layer_is_the_two_halves_of_the_network_with_the_change_between(layer: int) -> None:
    encoder, batch, seen = _made(), _batch(), []

    def change(tokens: Tensor) -> Tensor:
        seen.append(tokens)
        return tokens.flip(0)

    found = encoder(batch, layer=layer, change=change)
    (tokens,) = seen
    assert tokens.shape == (3, 5, 16)
    tokens = tokens.flip(0)
    for block in list(encoder.layers)[layer:]:
        tokens = block(tokens)
    assert_close(found, encoder.norm(tokens).mean(1))
    # Samples do not know each other, so changing their order changes the order alone.
    assert_close(found, encoder(batch).flip(0))


def test_mixing_before_the_first_layer_of_a_linear_network_is_mixing_its_inputs() -> None:
    encoder, batch = _made(), _batch()
    encoder.layers[0], encoder.layers[1] = torch.nn.Identity(), torch.nn.Linear(16, 16)
    encoder.norm = torch.nn.Identity()  # type: ignore[assignment]
    mixed = encoder(batch, layer=0, change=lambda tokens: tokens.roll(1, 0).lerp(tokens, 0.7))
    whole = encoder(batch)
    assert_close(mixed, 0.7 * whole + 0.3 * whole.roll(1, 0))


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(RecipeError, match=r"encoder\.k=0"):
        SequenceTransformer(k=0)
    with pytest.raises(RecipeError, match=r"encoder\.dim=13"):
        SequenceTransformer(dim=13)
