"""ConVIRT: a picture and a sentence of its report, which changes from step to step.

Zhang et al., "Contrastive Learning of Medical Visual Representations from Paired Images and Text", MLHC 2022
(arXiv 2010.00747).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.distributed import everyones, gathered
from overtone.encoders import TwoTowerEncoder
from overtone.errors import RecipeError
from overtone.heads import ProjectionHead
from overtone.methods import CLIP
from overtone.methods.pairing import check_pairs, pairing
from overtone.objectives.logits import check_temperature
from overtone.objectives.many_positives import cosines, many_positives
from overtone.strategies.strategy import strategy


def both_ways(
    image_logits: Tensor, text_logits: Tensor, own: Tensor, negatives: Tensor, image_to_text: float
) -> Tensor:
    """The weighted mean of naming a picture's text among others, and a text's picture.

    Args:
        image_logits: (n, m) of pictures (rows) and texts, cosines over the temperature.
        text_logits: (n, m) of texts (rows) and pictures.
        own: (n, m) bool, where a row's other side stands.
        negatives: (n, m) bool, which may repel; of both.
        image_to_text: Weight of the first, from 0 to 1; the second has the rest.

    Returns:
        Scalar; a row without negatives is 0 and counts in the mean.

    >>> eye = torch.eye(2, dtype=torch.bool)
    >>> both_ways(torch.eye(2), torch.zeros(2, 2), eye, ~eye, image_to_text=0.5)  # of 0.3133 and log 2
    tensor(0.5032)
    """
    naming_texts = many_positives(image_logits, own, negatives)
    return image_to_text * naming_texts + (1 - image_to_text) * many_positives(text_logits, own, negatives)


@strategy(
    "convirt",
    line="A picture and one sentence of its report, drawn at each step, attract each other.",
    modality="image and text",
    source="Zhang et al., Contrastive Learning of Medical Visual Representations, MLHC 2022",
    confidence="high",
    stage="cells",
    attribute="count",
    claim="a picture's report teaches more than other views of it",
    ablation=(
        "method={name: simclr}",
        "views={name: image, flip: 0.0}",
        "encoder={name: small_cnn}",
    ),
)
class ConVIRT(nn.Module):
    """Pictures and sentences attract each other through a head each; others of the cell repel.

    Equal sentences, which many reports share, are never negatives of each other's pictures.

    Args:
        encoder: Two towers; what is kept is what they give before the heads.
        image_to_text: Lambda, the weight of naming a picture's sentence.
        temperature: Of the softmax.
        out_dim: Dimension of z.
        norm: Of the heads, see `ProjectionHead`; the source has none.

    Raises:
        RecipeError: The encoder has no two towers, or a value is out of range.

    >>> from overtone.encoders import build_encoder
    >>> method = ConVIRT(build_encoder("small_clip", width=16), out_dim=8)
    >>> ids = {"cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = method.step([{"image": torch.rand(4, 3, 16, 16), **ids}, {"text": list("abcd"), **ids}])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 8]))
    """

    def __init__(
        self,
        encoder: TwoTowerEncoder,
        *,
        image_to_text: float = 0.75,
        temperature: float = 0.1,
        out_dim: int = 512,
        norm: Literal["batch", "none"] = "none",
    ) -> None:
        super().__init__()
        if not isinstance(encoder, TwoTowerEncoder):
            raise RecipeError(
                f"method.name: convirt needs an encoder with two towers, but {type(encoder).__name__} has "
                "one; choose encoder.name=small_clip, open_clip:MODEL or hf:MODEL"
            )
        if not 0 <= image_to_text <= 1:
            raise RecipeError(f"method.image_to_text={image_to_text}: expected a share from 0 to 1")
        check_temperature(temperature)
        self.encoder = encoder
        self.image_head = ProjectionHead(encoder.width, None, out_dim, norm=norm)
        self.text_head = ProjectionHead(encoder.width, None, out_dim, norm=norm)
        self.image_to_text, self.temperature = image_to_text, temperature

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of a batch of pairs, and z of both sides, (2B, out_dim), pictures first."""
        CLIP.check(views)
        z = [self.project(view) for view in views]
        return self.contrast(z, views), torch.cat(z)

    def project(self, view: Batch) -> Tensor:
        """z of one side, (B, out_dim)."""
        head = self.image_head if "image" in view else self.text_head
        z: Tensor = head(self.encoder(view))
        return z

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The loss of the z of both sides; the columns are those of all processes."""
        images, texts = z
        check_pairs(z, "convirt")
        own, negatives = pairing(views[0])
        if "sentence" in views[1]:
            sentence = views[1]["sentence"][:, 0]
            negatives &= sentence[:, None] != everyones(sentence)
        return both_ways(
            cosines(images, gathered(texts)) / self.temperature,
            cosines(texts, gathered(images)) / self.temperature,
            own,
            negatives,
            self.image_to_text,
        )
