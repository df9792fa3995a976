"""The two sides of a sample with a picture and a table, and the table with cells to be restored."""

from __future__ import annotations

import torch
from torch import Tensor

from overtone.contracts import Address, Batch
from overtone.rng import uniforms
from overtone.views.arguments import require
from overtone.views.images import ImageViews


class ImageTableViews:
    """Three views: the picture, cut at random; the table with cells of others; the table with cells hidden.

    In the second, some known cells show what another sample of the batch knows of that column: a draw from
    the column's own distribution there (Bahri et al., "SCARF", ICLR 2022). In the third, some known cells
    are hidden; `hidden`, (B, F) bool, says which, and `known` is without them.

    Args:
        corrupted: Share of the cells that show another sample's.
        hidden: Share of the cells that are hidden.
        crop_scale: See `ImageViews`.
        flip: See `ImageViews`.
        jitter: See `ImageViews`.

    Raises:
        RecipeError: A share is not from 0 to 1.

    >>> batch = {"index": torch.arange(2), "image": torch.zeros(2, 3, 8, 8), "table": torch.zeros(2, 5)}
    >>> views = ImageTableViews()({**batch, "known": torch.ones(2, 5).bool()}, Address(0, 0, 0))
    >>> [sorted(view) for view in views]
    [['image', 'index'], ['index', 'known', 'table'], ['hidden', 'index', 'known', 'table']]
    """

    def __init__(
        self,
        corrupted: float = 0.3,
        hidden: float = 0.5,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        flip: float = 0.0,
        jitter: float = 0.8,
    ) -> None:
        for name, share in (("corrupted", corrupted), ("hidden", hidden)):
            require(0 <= share <= 1, f"views.{name}", share, "a share from 0 to 1")
        self.pictures = ImageViews(n_views=1, crop_scale=crop_scale, flip=flip, jitter=jitter, grey=0.0)
        self.corrupted, self.hidden = corrupted, hidden

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """See the class."""
        table, known = batch["table"], batch["known"]
        (picture,) = self.pictures(batch, address)
        rest = {key: value for key, value in batch.items() if key not in ("image", "table", "known")}
        place = (address.seed, "table", address.stage, address.step)
        draws = uniforms(batch["index"], 3 * table.shape[1], *place).to(table.device)
        change, donor, hide = draws.chunk(3, dim=1)
        others = torch.where(change < self.corrupted, of_others(table, known, donor), table)
        hidden = known & (hide < self.hidden)
        return [
            {**rest, "image": picture["image"]},
            {**rest, "table": torch.where(known, others, table), "known": known},
            {**rest, "table": table, "known": known & ~hidden, "hidden": hidden},
        ]


def of_others(table: Tensor, known: Tensor, draws: Tensor) -> Tensor:
    """For each cell what a sample drawn from those of the batch that know this column has there.

    Args:
        table: (B, F).
        known: (B, F) bool.
        draws: (B, F) in [0, 1).

    Returns:
        (B, F); the table's own in a column that nobody knows.

    >>> known = torch.tensor([[True], [False], [True]])
    >>> of_others(torch.tensor([[1.0], [2.0], [3.0]]), known, torch.full((3, 1), 0.9)).flatten()
    tensor([3., 3., 3.])
    """
    knowing = known.sum(dim=0)
    # Those who know a column come first, in their order.
    first = known.int().argsort(dim=0, descending=True, stable=True)
    donors = first.gather(0, (draws * knowing).long())
    return torch.where(knowing > 0, table.gather(0, donors), table)
