"""CLIP (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, gathered, world_size
from overtone.encoders import TwoTowerEncoder
from overtone.errors import RecipeError
from overtone.methods.pairing import check_pairs, ids_of, own_columns
from overtone.objectives import nt_xent, nt_xent_both_ways

LEAST = 0.01  # of the temperature, as CLIP has it


def learned_temperature(encoder: TwoTowerEncoder) -> Tensor:
    """That of two towers, a scalar that is never below 0.01.

    The parameter itself is kept in bounds: were only its use bounded, no gradient would bring it back.

    >>> from overtone.encoders import build_encoder
    >>> encoder = build_encoder("small_clip", width=16)
    >>> _ = encoder.logit_scale.data.fill_(9.0)
    >>> round(learned_temperature(encoder).item(), 4)
    0.01
    """
    with torch.no_grad():
        encoder.logit_scale.clamp_(max=-math.log(LEAST))
    return 1 / encoder.logit_scale.exp()


def check_learned(temperature: float) -> None:
    """Raises a RecipeError unless two towers can learn from there."""
    if not LEAST <= temperature < math.inf:
        raise RecipeError(f"method.temperature={temperature}: expected {LEAST} or more, such as 0.07")


class CLIP(nn.Module):
    """A picture and its text attract each other; the texts of all other samples of its cell repel it, and
    their pictures its text.

    Args:
        encoder: Its `logit_scale` is trained with it.
        temperature: Fixed instead.

    Raises:
        RecipeError: The encoder has no two towers, or the temperature is below 0.01.

    >>> from overtone.encoders import build_encoder
    >>> method = CLIP(build_encoder("small_clip", width=16))
    >>> ids = {"cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = method.step([{"image": torch.rand(4, 3, 16, 16), **ids}, {"text": list("abcd"), **ids}])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 16]))
    """

    def __init__(self, encoder: TwoTowerEncoder, *, temperature: float | None = None) -> None:
        super().__init__()
        if not isinstance(encoder, TwoTowerEncoder):
            raise RecipeError(
                f"method.name: clip needs an encoder with two towers, but {type(encoder).__name__} has one; "
                "choose encoder.name=small_clip, open_clip:MODEL or hf:MODEL"
            )
        if temperature is not None:
            check_learned(temperature)
            with torch.no_grad():
                encoder.logit_scale.fill_(-math.log(temperature))
            encoder.logit_scale.requires_grad_(False)
        self.encoder, self.temperature = encoder, temperature

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of a batch of pairs, and the features of both sides, (2B, D), pictures first."""
        z = [self.project(view) for view in views]
        return self.contrast(z, views), torch.cat(z)

    def project(self, view: Batch) -> Tensor:
        """The features of one side, (B, D), of unit length."""
        return F.normalize(self.encoder(view), dim=1)

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The mean of both directions."""
        self.check(views)
        check_pairs(z, "clip")
        ids = ids_of(views[0])
        temperature = learned_temperature(self.encoder)
        images, texts = z
        if world_size() == 1:
            return nt_xent_both_ways(images, texts, ids, temperature)
        all_ids = Ids(*map(everyones, ids))
        own = own_columns(images)
        loss: Tensor = nt_xent(images, gathered(texts), own, ids, all_ids, temperature)
        return (loss + nt_xent(texts, gathered(images), own, ids, all_ids, temperature)) / 2

    @staticmethod
    def check(views: list[Batch]) -> None:
        """Refuses views that are not a picture and a text."""
        if len(views) != 2 or "image" not in views[0] or "text" not in views[1]:
            raise RecipeError(
                "views: two towers take a picture and a text of each sample; set views.name=image_text."
            )
