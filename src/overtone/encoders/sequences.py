"""A small transformer over sequences of a few symbols, into which something can reach between two layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d

from overtone.contracts import Batch
from overtone.encoders.encoder import Encoder
from overtone.encoders.series_transformer import transformer_layer
from overtone.errors import DataError, RecipeError

_SPREAD = 0.2  # of words at first; at torch's 1 a short training hardly moves them, and random ones are kept


class SequenceTransformer(Encoder):
    """A vector for the word of k symbols at each place; a few of them make a token of a transformer.

    Takes `batch["sequence"]`, (B, L) int64 below `symbols`. A sequence goes on with its last symbol, so there
    are as many words as symbols. The embedding is the mean of the tokens that come out. No
    places are told to the tokens: what a stretch is does not depend on where it was cut out.

    Args:
        symbols: How many there are.
        k: Symbols of a word; the table of words has symbols^k rows.
        places: Of a token.
        dim: Width of the embeddings.
        layers: Of attention.
        heads: Of attention; `dim` is a multiple.
        dropout: In training alone.

    Raises:
        RecipeError: A number is below 1, or the heads do not divide `dim`.

    >>> encoder = SequenceTransformer()
    >>> sequence = torch.randint(4, (3, 50), generator=torch.Generator().manual_seed(0))
    >>> encoder({"sequence": sequence}).shape
    torch.Size([3, 64])
    """

    def __init__(
        self,
        *,
        symbols: int = 4,
        k: int = 4,
        places: int = 5,
        dim: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {"symbols": symbols, "k": k, "places": places, "dim": dim, "layers": layers, "heads": heads}
        for name, value in sizes.items():
            if value < 1:
                raise RecipeError(f"encoder.{name}={value}: expected at least 1")
        if dim % heads:
            raise RecipeError(f"encoder.dim={dim}: expected a multiple of {heads} heads")
        self.sizes, self.places, self.dim = (symbols, k), places, dim
        self.words = nn.Embedding(symbols**k, dim)
        nn.init.normal_(self.words.weight, std=_SPREAD)
        self.layers = nn.ModuleList(transformer_layer(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.spec = {"name": "sequence_transformer", **sizes, "dropout": dropout}

    def forward(
        self, batch: Batch, layer: int | None = None, change: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """(B, dim) embeddings of `batch["sequence"]`.

        Args:
            batch: Holds it.
            layer: Before which `change` is called; 0 is the first.
            change: Takes the tokens, (B, T, dim), and gives those to go on with.

        Raises:
            DataError: The batch holds no sequences.
        """
        if "sequence" not in batch:
            raise DataError(f"a batch with the keys {sorted(batch)}: this encoder expects `sequence`")
        words = self.words(words_of(batch["sequence"], *self.sizes))
        tokens = avg_pool1d(words.mT, self.places, ceil_mode=True).mT
        for number, block in enumerate(self.layers):
            if change is not None and number == layer:
                tokens = change(tokens)
            tokens = block(tokens)
        mean: Tensor = self.norm(tokens).mean(1)
        return mean


def words_of(sequence: Tensor, symbols: int, k: int) -> Tensor:
    """(B, L) int64: the number of the word of k symbols that begins at each place of (B, L) sequences.

    >>> words_of(torch.tensor([[1, 0, 3]]), symbols=4, k=2)  # 10, 03, 33 to the base 4
    tensor([[ 4,  3, 15]])
    """
    longer = torch.cat([sequence, sequence[:, -1:].expand(-1, k - 1)], dim=1)
    powers = symbols ** torch.arange(k - 1, -1, -1, device=sequence.device)
    return (longer.unfold(1, k, 1) * powers).sum(-1)
