"""Distillation: one encoder learns to give what all stages give together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.contracts import Batch
from overtone.integration.joint import JointEncoder

Teacher = Callable[[Batch], Tensor]
"""From a batch to what shall be given for it, (B, D)."""


class Distillation(nn.Module):
    """A method that trains a student to give what a teacher gives for every view.

    The loss is the mean squared error: of a whitened teacher, the share of its variance that the student
    misses, every direction weighing the same. Of a raw concatenation, a few directions that all stages know
    hold nearly the whole variance, so matching it, or the similarities in it, teaches little else.

    Args:
        student: One stage and a head whose output is as wide as the teacher's; both are kept.
        teacher: Gives the targets; no part of the method's state.

    >>> from overtone.encoders import build_encoder
    >>> from overtone.heads import ProjectionHead
    >>> student = JointEncoder([build_encoder("small_cnn")], projection=ProjectionHead(128, out_dim=384))
    >>> method = Distillation(student, lambda batch: torch.zeros(4, 384))
    >>> loss, given = method.step([{"image": torch.rand(4, 3, 16, 16)}])
    >>> loss.shape, given.shape
    (torch.Size([]), torch.Size([4, 384]))
    """

    def __init__(self, student: JointEncoder, teacher: Teacher) -> None:
        super().__init__()
        # By these names the optimiser gives a trained encoder a lower rate than its new head.
        self.encoder, self.projection_head = student.stages[0], student.projection
        self._student_and_teacher = student, teacher  # a tuple, so that neither is a part of this module

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of the views of a batch, and what the student gives, (views * B, D), first view first."""
        given = [self.project(view) for view in views]
        return self.contrast(given, views), torch.cat(given)

    def project(self, view: Batch) -> Tensor:
        """What the student gives for one view, (B, D)."""
        given: Tensor = self._student_and_teacher[0](view)
        return given

    def contrast(self, given: list[Tensor], views: list[Batch]) -> Tensor:
        """How far that is from what the teacher gives."""
        with torch.no_grad():
            wanted = torch.cat([self._student_and_teacher[1](view) for view in views])
        return F.mse_loss(torch.cat(given), wanted)
