"""CircuitGCL: representations scatter around their mean in a target network, and an online one follows.

Source: CircuitGCL's published code (`sgrl_models.py`, `sgrl_train.py`). No pairs and no
augmentation. Here the mean is that of each cell, which for a first stage is the published one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from overtone.contracts import Batch
from overtone.distributed import everyones, gathered
from overtone.encoders import Encoder
from overtone.errors import RecipeError
from overtone.methods.teacher import Teacher
from overtone.strategies.strategy import strategy


def scattering(rows: Tensor, columns: Tensor, row_cells: Tensor, column_cells: Tensor) -> Tensor:
    """Minus the mean over rows of the squared distance to the mean of the columns of their cell.

    Of unit vectors of one cell it is |mean|^2 - 1, from -1 where they balance each other to 0
    where all are one.

    Args:
        rows: (n, d), of unit length.
        columns: (m, d), those of all processes, among them the rows.
        row_cells: (n,) int64.
        column_cells: (m,) int64.

    Returns:
        Scalar; what is alone in its cell is 0.

    >>> z, cells = torch.tensor([[1.0], [-1.0], [1.0]]), torch.tensor([0, 0, 1])
    >>> scattering(z, z, cells, cells)  # of 1, 1 and, alone in its cell, 0
    tensor(-0.6667)
    """
    together = (row_cells[:, None] == column_cells).to(rows.dtype)
    with torch.autocast(rows.device.type, enabled=False):
        centres = together @ columns / together.sum(dim=1, keepdim=True)
    return -(rows - centres).square().sum(dim=1).mean()


@strategy(
    "circuitgcl",
    line="A target network scatters embeddings around their mean; an online one predicts it. No pairs.",
    modality="graph",
    source="CircuitGCL, sgrl_models.py and sgrl_train.py",
    confidence="high",
    stage="cells",
    attribute="gate",
    claim="a target that scatters beats one that only averages",
    ablation=("method.scatter=0",),
)
class CircuitGCL(nn.Module):
    """An online encoder that predicts a target network, which scatters and, once an epoch, follows it.

    Args:
        encoder: Takes a batch, gives (B, D).
        momentum: m of the step of the target towards the encoder, once an epoch.
        scatter: Weight of the scattering. It shares no weights with the prediction, so under AdamW,
            whose steps have one size, only 0 differs from the rest. How much it scatters is decided by
            the target's rate, `train.lr`, beside the encoder's, `train.encoder_lr_scale` times that.

    Raises:
        RecipeError: A value is out of range.

    >>> from overtone.encoders import build_encoder
    >>> method = CircuitGCL(build_encoder("gcn", channels=3, width=8))
    >>> view = {"graph": torch.rand(4, 5, 3), "adjacency": torch.ones(4, 5, 5), "cell": torch.zeros(4).long()}
    >>> loss, z = method.step([view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([4, 8]))
    """

    def __init__(self, encoder: Encoder, *, momentum: float = 0.99, scatter: float = 1.0) -> None:
        super().__init__()
        if scatter < 0:
            raise RecipeError(f"method.scatter={scatter}: expected 0 or more")
        self.encoder, self.scatter = encoder, scatter
        self.predictor = nn.Sequential(
            nn.Linear(encoder.dim, encoder.dim), nn.PReLU(), nn.Linear(encoder.dim, encoder.dim)
        )
        self.target = Teacher(encoder, momentum)
        # Two forces move it: the average, and the gradient of the scattering.
        for own, other in zip(self.target.module.parameters(), encoder.parameters(), strict=True):
            own.requires_grad_(scatter > 0 and other.requires_grad)

    def begin_step(self, step: int, steps_per_epoch: int, steps: int) -> None:
        """The target follows once an epoch."""
        if step and step % steps_per_epoch == 0:
            self.target.follow(self.encoder)

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The mean loss over views of a batch, one being enough, and the encoder's embeddings, (K B, D)."""
        z = [self.encoder(view).float() for view in views]
        losses = [self.compared(each, view) for each, view in zip(z, views, strict=True)]
        return torch.stack(losses).mean(), torch.cat(z)

    def compared(self, z: Tensor, view: Batch) -> Tensor:
        """The loss of a view: minus the cosine to the target, and the scattering of the target."""
        target = normalize(self.target.module(view).float(), dim=1)
        loss = -cosine_similarity(self.predictor(z).float(), target.detach(), dim=1).mean()
        if not self.scatter:
            return loss
        cells = view["cell"]
        return loss + self.scatter * scattering(target, gathered(target), cells, everyones(cells))
