"""SepCLR: what a target set shares with a background set, and what it alone has, in two halves.

Source: Louiset et al., "Separating common from salient patterns with Contrastive Representation Learning",
ICLR 2024, and its published code (`losses.py`, the k-JEM variant). Kernels are exp(-|x - y|^2 / (2 t)) with
t = 0.5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, gathered
from overtone.encoders import Encoder
from overtone.errors import DataError, RecipeError
from overtone.heads import ProjectionHead
from overtone.methods.pairing import check_two
from overtone.objectives.many_positives import allowed
from overtone.strategies.strategy import strategy

WIDTH = 0.5  # t of the kernels


def alignment(first: Tensor, second: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen rows of their squared distance over 2 t; 0 of none.

    Args:
        first: (n, d).
        second: (n, d).
        chosen: (n,) bool.

    >>> alignment(torch.zeros(2, 1), torch.tensor([[1.0], [5.0]]), torch.tensor([True, False]))
    tensor(1.)
    """
    costs = (first - second).square().sum(dim=1) / (2 * WIDTH)
    return (costs * chosen).sum() / chosen.sum().clamp_min(1)


def uniformity(points: Tensor, pairs: Tensor) -> Tensor:
    """Log of the mean kernel of the pairs; 0 of none.

    Args:
        points: (n, d).
        pairs: (n, n) bool, symmetric and without the diagonal.

    >>> uniformity(torch.tensor([[0.0], [1.0]]), ~torch.eye(2, dtype=torch.bool))  # log exp(-1)
    tensor(-1.)
    """
    return _log_mean(_costs(points).flatten(), pairs.flatten())


def joint_entropy(common: Tensor, salient: Tensor, pairs: Tensor) -> Tensor:
    """Mean over rows of the log of the mean kernel of both parts over a row's pairs and itself.

    Minus an estimate of the entropy of both together: the lower it is, the less one part tells of the other.

    Args:
        common: (n, d).
        salient: (n, e).
        pairs: (n, n) bool.

    Returns:
        Scalar, from -log n to 0; a row without pairs is 0.

    >>> points = torch.tensor([[0.0], [100.0]])
    >>> joint_entropy(points, points, ~torch.eye(2, dtype=torch.bool))  # log 1/2
    tensor(-0.6931)
    """
    own = torch.eye(len(common), dtype=torch.bool, device=common.device)
    return _log_mean(_costs(common) + _costs(salient), pairs | own).mean()


def _costs(points: Tensor) -> Tensor:
    """(n, n) minus the logs of the kernels."""
    return (points[:, None] - points[None]).square().sum(dim=2) / (2 * WIDTH)


def _log_mean(costs: Tensor, chosen: Tensor) -> Tensor:
    """Log of the mean of exp(-cost) over what is chosen along the last dimension, 0 where nothing is."""
    count = chosen.sum(dim=-1)
    some = count > 0
    # Where nothing is chosen all is, and what comes of it dropped: no gradient is NaN then.
    kept = (-costs).masked_fill(~(chosen | ~some[..., None]), -torch.inf)
    found = torch.logsumexp(kept, dim=-1) - count.clamp_min(1).to(costs.dtype).log()
    return torch.where(some, found, torch.zeros_like(found))


@strategy(
    "sepclr",
    line="One half of the embedding for what two sets share, the other for what only the target set has.",
    modality="images of two sets",
    source="Louiset et al., SepCLR, ICLR 2024",
    confidence="high",
    stage="cells",
    attribute="digit",
    claim="told which pictures are background, the salient half holds what only targets have",
    ablation=("method.told=false",),
    columns=(128, None),
)
class SepCLR(nn.Module):
    """Alignment and uniformity in both halves, where the salient one of background is nothing.

    Takes batches with `target` (see `datasets.digits_on_patches`).

    Args:
        encoder: Takes a batch, gives (B, D), D even: the common half and the salient one. The encoder
            `halves` has a network for each.
        salient: Weight of the salient half; the defaults are the source's for digits on photographs.
        background: Weight of pushing the salient half of background to zero.
        entropy: Weight of the joint entropy.
        told: Off, every picture counts as a target: two halves that are told nothing.
        out_dim: Dimension of z of each half.

    Raises:
        RecipeError: A weight is negative, or D odd.

    >>> from overtone.encoders import build_encoder
    >>> view = {"image": torch.rand(4, 3, 16, 16), "target": torch.tensor([0, 1, 1, 0])}
    >>> view |= {"cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = SepCLR(build_encoder("halves"), out_dim=8).step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 16]))
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        salient: float = 1000.0,
        background: float = 1000.0,
        entropy: float = 10.0,
        told: bool = True,
        out_dim: int = 32,
    ) -> None:
        super().__init__()
        for name, value in {"salient": salient, "background": background, "entropy": entropy}.items():
            if value < 0:
                raise RecipeError(f"method.{name}={value}: expected 0 or more")
        if encoder.dim % 2:
            raise RecipeError(
                f"method.name: sepclr halves the embeddings, but the encoder's have {encoder.dim} "
                "dimensions; choose encoder.name=halves or another of an even number"
            )
        self.encoder, self.width = encoder, encoder.dim // 2
        self.common_head = ProjectionHead(self.width, None, out_dim)
        self.salient_head = ProjectionHead(self.width, None, out_dim)
        self.salient, self.background, self.entropy, self.told = salient, background, entropy, told

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch, and z, (2B, 2 out_dim): common of unit length, then salient."""
        z = [self.project(view) for view in views]
        return self.contrast(z, views), torch.cat(z)

    def project(self, view: Batch) -> Tensor:
        """z of one view, (B, 2 out_dim)."""
        common, salient = self.encoder(view).split(self.width, dim=1)
        unit = normalize(self.common_head(common).float(), dim=1)
        return torch.cat([unit, self.salient_head(salient).float()], dim=1)

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The loss of the z of two views, of all processes: each computes the whole, which is exact."""
        check_two(views, "sepclr")
        if "target" not in views[0]:
            raise DataError(
                f"a batch with the keys {sorted(views[0])}: sepclr also expects `target`, 0 of background; "
                "datasets.digits_on_patches shows how a data set says so"
            )
        ids = Ids(*(everyones(views[0][key]) for key in Ids._fields))
        target = everyones(views[0]["target"]).bool() | (not self.told)
        commons, salients = zip(*(gathered(each).chunk(2, dim=1) for each in z), strict=True)
        return self.separated(list(commons), list(salients), target, ids)

    def separated(self, common: list[Tensor], salient: list[Tensor], target: Tensor, ids: Ids) -> Tensor:
        """The loss of two views, (n, d) each, of n samples of which some are targets, (n,) bool."""
        every = torch.ones_like(target)
        pairs = allowed(
            ids, ids, torch.zeros(len(target), len(target), dtype=torch.bool, device=target.device)
        )
        clear = [each * target[:, None] for each in salient]
        spread, own_spread = (
            uniformity(one, pairs) + uniformity(other, pairs) for one, other in (common, clear)
        )
        loss = alignment(common[0], common[1], every) + spread
        of_salient = alignment(salient[0], salient[1], target) + own_spread
        left = [alignment(one, torch.zeros_like(one), ~target) for one in salient]
        joint = [joint_entropy(one, other, pairs) for one, other in zip(common, clear, strict=True)]
        loss = loss + self.salient * of_salient + self.background * torch.stack(left).mean()
        total: Tensor = loss + self.entropy * torch.stack(joint).mean()
        return total
