"""INS: of bags of which only is known whether anything in them is positive, to what each instance is.

Source: Qu et al., "Rethinking Multiple Instance Learning for Whole Slide Image Classification: A Good
Instance Classifier is All You Need", and its published code (`model.py`, `utils_loss.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, gathered
from overtone.encoders import Encoder
from overtone.errors import DataError, RecipeError
from overtone.heads import ProjectionHead
from overtone.methods.pairing import check_two, ids_of, own_columns
from overtone.methods.queue import Queue
from overtone.methods.teacher import Teacher
from overtone.objectives.many_positives import allowed, cosines, many_positives
from overtone.strategies.strategy import strategy


@strategy(
    "ins",
    line="An instance classifier, prototypes and contrast of instances name each other's pseudo-labels.",
    modality="bags of images",
    source="Qu et al., INS, and its published code",
    confidence="high",
    stage="cells",
    attribute="positive",
    claim="pseudo-labels of instances find what makes a bag positive, better than the bags' labels",
    ablation=("method.warm_up=100000", "method.bag_labels=100000"),
)
class INS(nn.Module):
    """Classifies instances by a table of soft labels that prototypes refine, and contrasts them by class.

    Takes batches with `bag_positive` (see `datasets.digit_bags`); instances of negative bags are negative.

    Args:
        encoder: Takes a batch, gives (B, D).
        warm_up: Epochs before pseudo-labels count; from the second on the contrast is each instance's own key
            against all others, of the batch (a cell lies in one) and of the queue.
        bag_labels: How many of them, at the beginning, give the classifier the label of the bag. In the rest
            it sees positive bags alone: beside negative ones it would soon call every instance negative.
        momentum: m of the key network, once a step.
        prototype: m of the prototypes, once an instance.
        kept: phi, how much of a soft label is kept each epoch, at the beginning and at the end of a training.
        queue: Keys that it holds.
        temperature: Of the contrast.
        contrast: Weight of the contrast beside the classifier.
        samples: Rows of the table of soft labels: at least as many as the data have samples.
        out_dim: Dimension of z.

    Raises:
        RecipeError: A value is out of range.

    >>> from overtone.encoders import build_encoder
    >>> view = {"image": torch.rand(4, 3, 16, 16), "bag_positive": torch.tensor([0, 1, 1, 0])}
    >>> view |= {"index": torch.arange(4), "identity": torch.arange(4), "cell": torch.zeros(4).long()}
    >>> loss, z = INS(build_encoder("small_cnn"), out_dim=8, queue=16, samples=4).step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([4, 8]))
    """

    soft: Tensor
    prototypes: Tensor
    queue_labels: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        warm_up: int = 15,
        bag_labels: int = 1,
        momentum: float = 0.999,
        prototype: float = 0.9,
        kept: tuple[float, float] = (0.95, 0.8),
        queue: int = 8192,
        temperature: float = 0.07,
        contrast: float = 0.5,
        samples: int = 100_000,
        out_dim: int = 128,
    ) -> None:
        super().__init__()
        shares = all(0 <= share <= 1 for share in (prototype, *kept))
        if not 1 <= bag_labels <= warm_up or samples < 1 or temperature <= 0 or contrast < 0 or not shares:
            raise RecipeError(
                f"method: warm_up={warm_up}, bag_labels={bag_labels}, samples={samples}, "
                f"temperature={temperature}, contrast={contrast}, prototype={prototype}, kept={kept}: "
                "expected samples and bag_labels of 1 or more, warm_up of bag_labels or more, a temperature "
                "above 0, contrast of 0 or more, prototype and kept from 0 to 1"
            )
        self.encoder = encoder
        self.projection_head = ProjectionHead(encoder.dim, None, out_dim)
        self.classifier = nn.Linear(encoder.dim, 2)
        self.key_encoder = Teacher(encoder, momentum)
        self.key_head = Teacher(self.projection_head, momentum)
        self.queue = Queue(queue, out_dim)
        # Pseudo-labels of the keys in the queue, the prototypes, a soft label of each sample.
        self.register_buffer("queue_labels", torch.zeros(queue, dtype=torch.int64))
        self.register_buffer("prototypes", torch.zeros(2, out_dim))
        self.register_buffer("soft", torch.full((samples, 2), 0.5))
        self.warm_up, self.bag_labels, self.prototype = warm_up, bag_labels, prototype
        self.temperature, self.weight = temperature, contrast
        self.range, self.kept, self.epoch = kept, kept[0], 0

    def begin_step(self, step: int, steps_per_epoch: int, steps: int) -> None:
        """Sets the epoch, and how much of a soft label is kept."""
        self.epoch = step // steps_per_epoch
        first, last = self.range
        self.kept = first + (last - first) * step / max(steps - 1, 1)

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch, and z of the first, (B, out_dim), of unit length."""
        check_two(views, "ins")
        self._check(views[0])
        first, second = views
        embeddings = self.encoder(first)
        scores = self.classifier(embeddings).float()
        z = normalize(self.projection_head(embeddings).float(), dim=1)
        with torch.no_grad():
            self.key_encoder.follow(self.encoder)
            self.key_head.follow(self.projection_head)
            keys = self.key_head.module(self.key_encoder.module(second)).float()
        candidates = candidate_labels(first["bag_positive"])
        labels = (scores.detach().softmax(dim=1) * candidates).argmax(dim=1)
        ids = ids_of(first)
        loss = self.weight * self.contrast(z, normalize(keys, dim=1), labels, ids) if self.epoch else 0.0
        self.remember(z.detach(), keys, labels, ids)
        if self.epoch >= self.warm_up:
            self.refine(z.detach(), candidates, first["index"])
        targets = self.targets(candidates, first["index"])
        said = -(targets * scores.log_softmax(dim=1)).sum(dim=1)
        return loss + (said * self.counted(candidates)).mean(), z

    def contrast(self, z: Tensor, keys: Tensor, labels: Tensor, ids: Ids) -> Tensor:
        """In the warm-up each against all other keys; then all of one pseudo-label together."""
        held, all_keys = self.queue.held(), everyones(keys)
        all_ids, own = Ids(*map(everyones, ids)), own_columns(z)
        if self.epoch < self.warm_up:
            columns, column_ids = torch.cat([all_keys, held.keys]), _joined(all_ids, held.ids)
            positives = own[:, None] == torch.arange(len(columns), device=z.device)
            negatives = allowed(ids, column_ids, positives)
            logits = cosines(z, columns) / self.temperature
            return many_positives(logits, positives, negatives)
        columns = torch.cat([gathered(z), all_keys, held.keys])
        column_ids = _joined(all_ids, all_ids, held.ids)
        every = everyones(labels)
        column_labels = torch.cat([every, every, self.queue_labels[: len(held.keys)]])
        itself = own[:, None] == torch.arange(len(columns), device=z.device)
        positives = (labels[:, None] == column_labels) & ~itself
        negatives = allowed(ids, column_ids, positives) & ~itself
        logits = cosines(z, columns) / self.temperature
        return many_positives(logits, positives, negatives, denominator="all")

    @torch.no_grad()
    def remember(self, z: Tensor, keys: Tensor, labels: Tensor, ids: Ids) -> None:
        """Keys with their pseudo-labels into the queue; instances into the prototypes, one by one."""
        every, size = everyones(labels), self.queue.size
        at = (int(self.queue.pushed) + torch.arange(len(every), device=z.device)[-size:]) % size
        self.queue_labels[at] = every[-size:]
        self.queue.push(everyones(keys), Ids(*map(everyones, ids)))
        for one, label in zip(everyones(z), every.tolist(), strict=True):
            moved = self.prototype * self.prototypes[label] + (1 - self.prototype) * one
            self.prototypes[label] = normalize(moved, dim=0)

    @torch.no_grad()
    def refine(self, z: Tensor, candidates: Tensor, index: Tensor) -> None:
        """Moves the soft labels of a batch towards the nearer prototype that the bag allows."""
        nearer = (cosines(z, self.prototypes).softmax(dim=1) * candidates).argmax(dim=1)
        moved = self.kept * self.targets(candidates, index) + (1 - self.kept) * one_hot(nearer, 2)
        # Of all processes, so that each has the same table.
        self.soft[everyones(index)] = everyones(moved)

    def targets(self, candidates: Tensor, index: Tensor) -> Tensor:
        """(B, 2): what the classifier is to say: (1, 0) of negative bags; in the first epochs the bag's."""
        bags = torch.tensor([0.0, 1.0], device=candidates.device)
        known = bags if self.epoch < self.bag_labels else self.soft[index]
        return torch.where(candidates[:, 1:] == 1, known, candidates)

    def counted(self, candidates: Tensor) -> Tensor:
        """(B,) of 0 and 1: what the classifier learns from."""
        between = self.bag_labels <= self.epoch < self.warm_up
        return candidates[:, 1] if between else torch.ones_like(candidates[:, 1])

    def _check(self, view: Batch) -> None:
        if "bag_positive" not in view:
            raise DataError(
                f"a batch with the keys {sorted(view)}: ins also expects `bag_positive`, 1 or 0; "
                "datasets.digit_bags shows how a data set says so"
            )
        if int(view["index"].max()) >= len(self.soft):
            raise RecipeError(
                f"method.samples={len(self.soft)}: the data have sample {int(view['index'].max())}; set it "
                "to the number of samples or more"
            )


def candidate_labels(bag_positive: Tensor) -> Tensor:
    """(n, 2) of 0 and 1: which labels an instance can have, by its bag, (n,).

    >>> candidate_labels(torch.tensor([0, 1])).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    return torch.stack([torch.ones_like(bag_positive), bag_positive], dim=1).float()


def _joined(*ids: Ids) -> Ids:
    return Ids(*map(torch.cat, zip(*ids, strict=True)))
