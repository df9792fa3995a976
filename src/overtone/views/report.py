"""The two sides of a sample with a picture and a text of several sentences."""

from __future__ import annotations

import torch

from overtone.contracts import Address, Batch
from overtone.rng import derive, uniforms
from overtone.views.arguments import require
from overtone.views.image_text import ImageTextViews


class ReportViews:
    """Two views of a pair: its picture, cut at random, and sentences of its text, drawn anew each step.

    Sentences are drawn without putting back; where a text has fewer than are asked for, they come again.
    A draw belongs to (address, the sample's index).

    Args:
        sentences: How many of each text.
        separator: What stands between sentences.
        crop_scale: See `ImageTextViews`.
        flip: See `ImageTextViews`.
        jitter: See `ImageTextViews`.

    Raises:
        RecipeError: No sentence is asked for, or the separator is empty.

    >>> batch = {"index": torch.arange(2), "image": torch.zeros(2, 3, 8, 8), "text": ["Dot. Red.", "Line"]}
    >>> picture, text = ReportViews(sentences=2)(batch, Address(seed=0, stage=0, step=0))
    >>> sorted(text["text"]), text["sentence"].shape
    (['Dot', 'Line', 'Line', 'Red'], torch.Size([2, 2]))
    """

    def __init__(
        self,
        sentences: int = 1,
        separator: str = ".",
        crop_scale: tuple[float, float] = (0.9, 1.0),
        flip: float = 0.0,
        jitter: float = 0.0,
    ) -> None:
        require(sentences >= 1, "views.sentences", sentences, "at least 1")
        require(bool(separator), "views.separator", separator, "what stands between sentences, such as '.'")
        self.sides = ImageTextViews(crop_scale, flip, jitter)
        self.sentences, self.separator = sentences, separator

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """The batch without its text and with a picture cut at random, and the batch without its picture.

        Returns:
            In the second, `text` is a list of B S sentences, those of a sample together, and `sentence`,
            (B, S) int64, a number for each, the same for equal ones.
        """
        picture, text = self.sides(batch, address)
        reports = [self.split(each) for each in batch["text"]]
        place = (address.seed, "report", address.stage, address.step)
        draws = uniforms(batch["index"], max(map(len, reports)), *place)
        drawn = [
            report[row]
            for report, numbers in zip(reports, draws, strict=True)
            for row in numbers[: len(report)].argsort().repeat(self.sentences)[: self.sentences].tolist()
        ]
        numbers = torch.tensor([derive(0, each) for each in drawn]).view(-1, self.sentences)
        return [picture, {**text, "text": drawn, "sentence": numbers.to(batch["index"].device)}]

    def split(self, text: str) -> list[str]:
        """The sentences of a text, without the blanks around them; the text itself where there are none.

        >>> ReportViews().split("A dot. It is red.")
        ['A dot', 'It is red']
        """
        return [part.strip() for part in text.split(self.separator) if part.strip()] or [text]
