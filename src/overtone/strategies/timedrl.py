"""TimeDRL: what a series is in its [CLS], when it does what in its tokens, each learned by its own task.

Chang et al., "TimeDRL: Disentangled Representation Learning for Multivariate Time-Series", ICDE 2024, with
the published code's defaults.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from overtone.contracts import Batch
from overtone.distributed import mean_of_all
from overtone.encoders import Encoder, SeriesTransformer
from overtone.errors import RecipeError
from overtone.methods.pairing import check_two
from overtone.strategies.strategy import strategy


def agreement(embeddings: tuple[Tensor, Tensor], predictions: tuple[Tensor, Tensor]) -> Tensor:
    """Minus the mean cosine between each pass's prediction and the other pass's embedding, which is fixed.

    Args:
        embeddings: (B, d) of each of two passes; no gradient reaches them from here.
        predictions: (B, d) made of each of them.

    Returns:
        Scalar in [-1, 1].

    >>> one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> agreement((one, other), (other, other))  # of cosines 1 and 0
    tensor(-0.5000)
    """
    (first, second), (of_first, of_second) = embeddings, predictions
    forth = cosine_similarity(of_first, second.detach(), dim=1)
    back = cosine_similarity(of_second, first.detach(), dim=1)
    return -(forth.mean() + back.mean()) / 2


def patch_error(predicted: Tensor, patches: Tensor, present: Tensor) -> Tensor:
    """Mean squared error over the values of the patches that are there.

    Args:
        predicted: (B, P, v).
        patches: (B, P, v).
        present: (B, P) bool.

    >>> patch_error(torch.zeros(1, 2, 1), torch.tensor([[[3.0], [9.0]]]), torch.tensor([[True, False]]))
    tensor(9.)
    """
    return mean_of_all((predicted - patches).square().mean(2)[present])


@strategy(
    "timedrl",
    line="Two dropout passes: tokens rebuild their patches, the [CLS] of one predicts that of the other.",
    modality="series",
    source="Chang et al., TimeDRL, ICDE 2024",
    confidence="high",
    stage="concatenation",
    attribute="timbre",
    claim="both levels beat the agreement of two passes alone",
    ablation=("method.predict=0",),
)
class TimeDRL(nn.Module):
    """Prediction of the patches from the tokens, agreement of two passes in the [CLS]; no negatives.

    Args:
        encoder: A `SeriesTransformer`, whose dropout makes the passes differ.
        contrast: lambda, the weight of the agreement.
        predict: Weight of the prediction of patches, beside which the source weighs the agreement.
        dropout: Of the two heads.

    Raises:
        RecipeError: The encoder has no tokens, or a weight is negative.

    >>> batch = {"series": torch.rand(4, 40, 1), "length": torch.full((4,), 40)}
    >>> loss, z = TimeDRL(SeriesTransformer(channels=1)).step([batch, batch])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 64]))
    """

    def __init__(
        self, encoder: Encoder, *, contrast: float = 0.1, predict: float = 1.0, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if not isinstance(encoder, SeriesTransformer):
            raise RecipeError(
                f"method.name: timedrl learns in tokens of series, and {type(encoder).__name__} has none; "
                "set encoder.name=series_transformer"
            )
        for name, value in (("contrast", contrast), ("predict", predict)):
            if value < 0:
                raise RecipeError(f"method.{name}={value}: expected 0 or more")
        self.encoder, self.contrast, self.predict = encoder, contrast, predict
        self.decoder = nn.Sequential(nn.Dropout(dropout), nn.Linear(encoder.dim, encoder.embed.in_features))
        half = encoder.dim // 2
        self.predictor = nn.Sequential(
            nn.Linear(encoder.dim, half),
            nn.BatchNorm1d(half),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(half, encoder.dim),
        )

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two passes, and the embeddings of both, (2B, dim).

        Raises:
            RecipeError: There are more views, or fewer.
        """
        check_two(views, "timedrl")
        one, two = (self.encoder(view, parts=True) for view in views)
        errors = [patch_error(self.decoder(p.tokens).float(), p.patches, p.present) for p in (one, two)]
        wholes = one.whole.float(), two.whole.float()
        predicted = self.predictor(one.whole).float(), self.predictor(two.whole).float()
        prediction = self.predict * sum(errors) / 2
        return prediction + self.contrast * agreement(wholes, predicted), torch.cat(wholes)
