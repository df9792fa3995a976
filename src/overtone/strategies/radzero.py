"""RadZero: each sentence looks at the patches that it is like, and a picture has several sentences.

Park et al., "RadZero: Similarity-Based Cross-Attention for Explainable Vision-Language Alignment in Chest
X-ray with Zero-Shot Multi-Task Capability", NeurIPS 2025 (arXiv 2504.07416); of its two directions, the one
from pictures is UniCLIP's MP-NCE (Lee et al., NeurIPS 2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from overtone.contracts import Batch
from overtone.distributed import everyones, gathered
from overtone.encoders import PatchTowers
from overtone.errors import RecipeError
from overtone.methods import CLIP
from overtone.methods.clip import check_learned, learned_temperature
from overtone.methods.pairing import Pairing, pairing
from overtone.objectives.logits import check_temperature, unit
from overtone.objectives.many_positives import many_positives
from overtone.strategies.strategy import strategy


def attended(sentences: Tensor, tokens: Tensor, temperature: float | Tensor) -> Tensor:
    """The cosine of each sentence with what it sees of each picture: the tokens, weighted by likeness.

    For sentence t and the tokens v of a picture, all of length 1: a = softmax over v of cos(t, v) over the
    temperature, u = sum of a v, and the result is cos(t, u).

    Args:
        sentences: (N, D), of any length.
        tokens: (B, L, D), likewise.
        temperature: Of the attention; near 0 a sentence sees one token, far above 1 the mean of all.

    Returns:
        (N, B), in float32 at least.

    >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> sentence = torch.tensor([[1.0, 0.0]])
    >>> attended(sentence, tokens, 1e6), attended(sentence, tokens, 0.01)
    (tensor([[0.7071]]), tensor([[1.]]))
    """
    with torch.autocast(tokens.device.type, enabled=False):
        sentences, flat = unit(sentences), unit(tokens.flatten(0, 1))
        values, likeness = flat.view_as(tokens), (sentences @ flat.T).view(-1, *tokens.shape[:2])
        attention = (likeness / temperature).softmax(dim=2)  # (N, B, L)
        seen = (attention.transpose(0, 1) @ values).transpose(0, 1)  # (N, B, D)
        found: Tensor = cosine_similarity(sentences[:, None], seen, dim=2)
        return found


def both_ways(
    to_pictures: Tensor, to_sentences: Tensor, pairs: Pairing, keys: Tensor, all_keys: Tensor
) -> Tensor:
    """The mean of naming the picture of each sentence, and each sentence of a picture among those of others.

    Args:
        to_pictures: (B, S, m) logits of the S sentences of each of B samples with the pictures of all m.
        to_sentences: (B, m, S) logits of each picture with the sentences of all.
        pairs: Of the samples.
        keys: (B, S) int64, the same for equal sentences, which never repel each other's pictures.
        all_keys: (m, S) of all.

    Returns:
        Scalar. In the second part each sentence of a picture stands alone against the negatives (MP-NCE).

    >>> pairs, keys = Pairing(torch.eye(2).bool(), ~torch.eye(2).bool()), torch.tensor([[0], [1]])
    >>> both_ways(torch.eye(2)[:, None], torch.eye(2)[..., None], pairs, keys, keys)  # log(1 + exp(0 - 1))
    tensor(0.3133)
    """
    said = (keys[:, :, None, None] == all_keys).any(3)  # (B, S, m): the sentence is in that sample's text
    says = (keys[:, None, None] == all_keys[..., None]).any(
        3
    )  # (B, m, S): that sentence is in one's own text
    naming_pictures = many_positives(
        to_pictures.flatten(0, 1),
        pairs.own[:, None].expand_as(said).flatten(0, 1),
        (pairs.negatives[:, None] & ~said).flatten(0, 1),
    )
    naming_sentences = many_positives(
        to_sentences.flatten(1),
        pairs.own[..., None].expand_as(says).flatten(1),
        (pairs.negatives[..., None] & ~says).flatten(1),
    )
    return (naming_pictures + naming_sentences) / 2


@strategy(
    "radzero",
    line="Each sentence looks at the patches that it is like; a picture has several sentences.",
    modality="image and text",
    source="Park et al., RadZero: Similarity-Based Cross-Attention for Chest X-ray, NeurIPS 2025",
    confidence="high",
    stage="cells",
    attribute="state",
    claim="three sentences of a picture at once beat one",
    ablation=("views.sentences=1",),
)
class RadZero(nn.Module):
    """Sentences attract the pictures they belong to, by what each sees of them.

    Others of the cell repel; a sentence that two pictures share repels neither. The scale of the logits,
    `logit_scale` of the encoder, is learned, and that of the attention is the same unless it is given.

    Args:
        encoder: Two towers that give tokens.
        temperature: Where that of the logits begins, 0.01 or more.
        attention_temperature: A fixed one for the attention.

    Raises:
        RecipeError: The encoder gives no tokens, or a temperature is too low.

    >>> method = RadZero(PatchTowers(width=16))
    >>> ids = {"cell": torch.zeros(2).long(), "identity": torch.arange(2)}
    >>> text = {"text": ["a dot", "it is red", "a line", "it is red"]}
    >>> text |= {"sentence": torch.tensor([[0, 1], [2, 1]])}
    >>> loss, z = method.step([{"image": torch.rand(2, 3, 16, 16), **ids}, {**text, **ids}])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([4, 16]))
    """

    def __init__(
        self,
        encoder: PatchTowers,
        *,
        temperature: float = 0.07,
        attention_temperature: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, PatchTowers):
            raise RecipeError(
                f"method.name: radzero needs an encoder that gives tokens, but {type(encoder).__name__} "
                "gives one vector; choose encoder.name=patch_towers"
            )
        check_learned(temperature)
        if attention_temperature is not None:
            check_temperature(attention_temperature)
        with torch.no_grad():
            encoder.logit_scale.fill_(-math.log(temperature))
        self.encoder, self.attention_temperature = encoder, attention_temperature
        self.norm = nn.LayerNorm(encoder.width)

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of pictures and S sentences of each, and the features of the sentences, (B S, D)."""
        CLIP.check(views)
        pictures, texts = views
        if "sentence" not in texts:
            raise RecipeError("views: radzero takes sentences of each text; set views.name=report.")
        tokens = self.norm(self.encoder.encode_tokens(pictures["image"]))
        sentences = self.norm(self.encoder.encode_text(texts["text"]))
        return self.contrast(tokens, sentences, views), sentences

    def contrast(self, tokens: Tensor, sentences: Tensor, views: list[Batch]) -> Tensor:
        """The mean of both directions, from the tokens (B, L, D) and the sentences (B S, D)."""
        keys, everywhere = views[1]["sentence"], gathered(tokens)
        logits = of_all = self.logits(sentences, everywhere)
        if everywhere is not tokens:
            of_all = self.logits(gathered(sentences), tokens)
        to_pictures = logits.view(*keys.shape, -1)
        to_sentences = of_all.T.reshape(len(keys), -1, keys.shape[1])
        return both_ways(to_pictures, to_sentences, pairing(views[0]), keys, everyones(keys))

    def logits(self, sentences: Tensor, tokens: Tensor) -> Tensor:
        """(N, B), cosines over the learned temperature."""
        temperature = learned_temperature(self.encoder)
        fixed = self.attention_temperature
        return attended(sentences, tokens, temperature if fixed is None else fixed) / temperature
