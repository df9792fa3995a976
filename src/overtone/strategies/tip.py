"""TIP: a picture and a table with gaps attract each other; false pairs are told, hidden cells restored.

Du et al., "TIP: Tabular-Image Pre-training for Multimodal Classification with Incomplete Data", ECCV 2024
(arXiv 2407.07582).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overtone import rng
from overtone.contracts import Batch
from overtone.distributed import gathered, mean_of_all
from overtone.encoders import ImageTableEncoder
from overtone.errors import RecipeError
from overtone.heads import ProjectionHead
from overtone.methods.pairing import ids_of, pairing
from overtone.objectives.logits import check_temperature
from overtone.objectives.many_positives import allowed, cosines
from overtone.strategies.convirt import both_ways
from overtone.strategies.strategy import strategy

_FLOOR = 1e-4  # added to the chance of each negative


def drawn_negatives(logits: Tensor, negatives: Tensor) -> Tensor:
    """A negative for each row, the likelier the more similar: by softmax of its logits, plus 0.0001.

    Args:
        logits: (n, m).
        negatives: (n, m) bool.

    Returns:
        (n,) int64 columns, drawn from the stream of the step; -1 where a row has none.

    >>> drawn_negatives(torch.zeros(2, 2), torch.tensor([[False, True], [False, False]]))
    tensor([ 1, -1])
    """
    chances = (logits.detach().float().softmax(dim=1) + _FLOOR) * negatives
    some = negatives.any(dim=1)
    chances[~some] = 1
    drawn = torch.multinomial(chances.cpu(), 1, generator=rng.of_step())[:, 0]
    return torch.where(some, drawn.to(logits.device), -1)


@strategy(
    "tip",
    line="A picture and a table with gaps attract; pairs are told from false ones, hidden cells restored.",
    modality="image and table",
    source="Du et al., TIP: Tabular-Image Pre-training with Incomplete Data, ECCV 2024",
    confidence="high",
    stage="cells",
    attribute="digit",
    claim="restoring hidden cells helps where half of a table is missing",
    ablation=("method.restore=0.0",),
)
class TIP(nn.Module):
    """The mean of three losses: which table is a picture's, whether a pair is one, what hidden cells hold.

    False pairs are hard ones of the anchor's cell. Where it has none, its pair is only a true one.

    Args:
        encoder: Takes pictures and tables.
        temperature: Of the first loss.
        match: Weight of the second.
        restore: Weight of the third.
        out_dim: Dimension of z.

    Raises:
        RecipeError: The encoder takes no tables, or a value is out of range.

    >>> from overtone.contracts import Address
    >>> from overtone.views import ImageTableViews
    >>> batch = {"index": torch.arange(4), "cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> batch |= {"image": torch.rand(4, 3, 24, 12), "table": torch.zeros(4, 3)}
    >>> batch |= {"known": torch.ones(4, 3).bool()}
    >>> method = TIP(ImageTableEncoder(levels=[3, 2], quantities=1, width=8), out_dim=6)
    >>> loss, z = method.step(ImageTableViews()(batch, Address(0, 0, 0)))
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 6]))
    """

    def __init__(
        self,
        encoder: ImageTableEncoder,
        *,
        temperature: float = 0.1,
        match: float = 1.0,
        restore: float = 1.0,
        out_dim: int = 128,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, ImageTableEncoder):
            raise RecipeError(
                f"method.name: tip needs an encoder of pictures and tables, but {type(encoder).__name__} "
                "takes no tables; choose encoder.name=image_table"
            )
        check_temperature(temperature)
        for name, value in (("match", match), ("restore", restore)):
            if value < 0:
                raise RecipeError(f"method.{name}={value}: expected 0 or more")
        self.encoder, self.temperature, self.match, self.restore = encoder, temperature, match, restore
        width = encoder.width
        self.image_head = ProjectionHead(width, None, out_dim, norm="none")
        self.table_head = ProjectionHead(width, None, out_dim, norm="none")
        self.is_pair = nn.Linear(width, 2)
        self.classes, self.quantity = nn.Linear(width, max(1, sum(encoder.levels))), nn.Linear(width, 1)

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of the three views of a batch, and z of pictures and tables, (2B, out_dim)."""
        if len(views) != 3 or "image" not in views[0] or "hidden" not in views[2]:
            raise RecipeError("views: tip takes a picture and two tables; set views.name=image_table.")
        pictures = self.encoder.encode_image(views[0]["image"])
        tables = self.encoder.encode_table(views[1]["table"], views[1]["known"])
        z = [self.image_head(pictures.mean(1)), self.table_head(tables[:, 0])]
        loss = self.contrast(z, views)
        if self.match:
            loss = loss + self.match * self.matching(pictures, tables, z, views)
        if self.restore:
            loss = loss + self.restore * self.restoring(pictures, views[2])
        return loss / 3, torch.cat(z)

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """Naming the table of each picture, and the picture of each table."""
        images, tables = z
        own, negatives = pairing(views[0])
        to_tables = cosines(images, gathered(tables)) / self.temperature
        to_images = cosines(tables, gathered(images)) / self.temperature
        return both_ways(to_tables, to_images, own, negatives, 0.5)

    def matching(self, pictures: Tensor, tables: Tensor, z: list[Tensor], views: list[Batch]) -> Tensor:
        """Telling each pair from one with a hard table and one with a hard picture, of this process."""
        ids = ids_of(views[0])
        negatives = allowed(ids, ids, torch.eye(len(pictures), dtype=torch.bool, device=pictures.device))
        logits = cosines(*z) / self.temperature
        table, picture = drawn_negatives(logits, negatives), drawn_negatives(logits.T, negatives)
        rows = torch.arange(len(pictures), device=pictures.device)
        of_tables, of_pictures = torch.cat([rows, table, rows]), torch.cat([rows, rows, picture])
        joined = self.encoder.joined(pictures[of_pictures], tables[of_tables])
        truth = torch.cat([torch.ones_like(rows), *((each >= 0).long() - 1 for each in (table, picture))])
        there = truth >= 0
        said = self.is_pair(joined[:, 0]).float()[there]
        return mean_of_all(F.cross_entropy(said, truth[there], reduction="none"))

    def restoring(self, pictures: Tensor, view: Batch) -> Tensor:
        """Half the cross entropy of hidden categories and half the squared error of hidden quantities."""
        table, known, hidden = view["table"], view["known"], view["hidden"]
        cells = self.encoder.joined(pictures, self.encoder.encode_table(table, known))[:, 1:]
        n = len(self.encoder.levels)
        codes = (table[:, :n].long() + self.encoder.begins[:n])[hidden[:, :n]]
        scores, guesses = self.classes(cells[:, :n]).float(), self.quantity(cells[:, n:])[..., 0].float()
        classes = F.cross_entropy(scores[hidden[:, :n]], codes, reduction="none")
        errors = (guesses - table[:, n:])[hidden[:, n:]].square()
        return (mean_of_all(classes) + mean_of_all(errors)) / 2
