"""What a run will take, said before it begins: steps, bytes on the disk, memory and time.

What follows from the recipe and the number of samples is exact; a range says between which bounds the run
itself will decide; an estimate is named one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from overtone import granularity
from overtone.cell_files import narrow
from overtone.kmeans import first_level, most_clusters, resolved_clusters, subsample_size
from overtone.multistage import EMBEDDED_AT_ONCE
from overtone.partition import Partition
from overtone.planning.figures import Figure, Figures, Plan, StagePlan
from overtone.planning.peeking import Peek, content_bytes, count, peek
from overtone.planning.probing import Held, held, speed
from overtone.recipe import Recipe, build_parts, resolved
from overtone.run_folder import Parts
from overtone.sampling import CellBatchSampler
from overtone.stages import StageSpec
from overtone.views.erasing import Units

_HEADER = 128  # of a .npy file with a vector or a matrix
_LEDGER = 90  # bytes of a line, a few more or less
_POINTS = 256  # samples a cluster from which centers are found
_KEPT = {
    "memory": "Decoded samples are kept in the memory of each process.",
    "disk": "Decoded samples are kept in a file, which is mapped.",
    "none": "Decoded samples are not kept: each pass reads and decodes them.",
}
_ASSIGNED = 3 * 2**23  # bytes while samples are assigned to clusters, a chunk at a time
_SORTING = 40  # bytes a sample while it is assigned to a cluster and sorted by it


class Given(NamedTuple):
    """What a user knows of the data and the machines.

    Attributes:
        samples: How many there would be, of data that are not here.
        bytes_per_sample: Stored, on average.
        samples_per_second: In training, of one process.
        bytes_per_second: Read or written, over all processes.
        calibrate: Measure `samples_per_second` on this machine.
    """

    samples: int | None = None
    bytes_per_sample: float | None = None
    samples_per_second: float | None = None
    bytes_per_second: float | None = None
    calibrate: bool = False


def plan(recipe: Recipe, world_size: int = 1, given: Given | None = None) -> Plan:
    """What a run of a recipe will take on so many processes.

    Args:
        recipe: The run.
        world_size: Processes.
        given: What else is known.

    Raises:
        RecipeError: The run would refuse the recipe, these data, or so many processes.
        DataError: The data are not there.

    >>> from overtone.recipe import parse
    >>> small = {"data": {"source": "trifeature", "n": 100, "image_size": 16}}
    >>> found = plan(parse({**small, "stages": 2, "train": {"epochs": 3, "batch_size": 32}}))
    >>> [stage.steps.most for stage in found.stages], found.stages[0].steps.how
    ([9, 9], 'exact')
    """
    given = given or Given()
    recipe, said = _usable(resolved(recipe))
    found = peek(recipe, given.samples)
    if given.bytes_per_sample is not None:
        found = found._replace(stored=given.bytes_per_sample)
    n_test = None if recipe.test is None or given.samples is not None else count(recipe.test)
    parts = build_parts(recipe, found.dataset, None)
    run = _Run(parts, found, world_size, n_test, given)
    return run.planned([*said, *run.said()])


def _usable(recipe: Recipe) -> tuple[Recipe, list[str]]:
    try:
        torch.empty(0, device=recipe.device)
    except (RuntimeError, AssertionError):
        note = (
            f"Memory is read off on the CPU: {recipe.device} cannot be used here and may keep other tensors."
        )
        return recipe.model_copy(update={"device": "cpu"}), [note]
    return recipe, []


class _Run:
    """The arithmetic of one plan."""

    def __init__(self, parts: Parts, data: Peek, world_size: int, n_test: int | None, given: Given) -> None:
        self.parts, self.data, self.given = parts, data, given
        self.n, self.n_test, self.world = len(data.dataset), n_test, world_size
        self.specs = list(parts.stages)
        self.cells = _cells(self.specs, self.n)
        self.batches = [
            batches(spec, self.n, cells, world_size) if spec.epochs else (Figure.exact(0), Figure.exact(0))
            for spec, cells in zip(self.specs, self.cells, strict=True)
        ]
        self._held: dict[tuple[Any, ...], Held] = {}
        self.speed = self._speed()

    def held(self, spec: StageSpec) -> Held:
        key = (spec.trainable, spec.lora, spec.optimizer, spec.micro_batch_size is None)
        if key not in self._held:
            self._held[key] = held(self.parts, spec)
        return self._held[key]

    def planned(self, said: Sequence[str]) -> Plan:
        stages = [self.stage(number) for number in range(len(self.specs))]
        checkpoint = max(
            (self.held(s).method + self.held(s).optimizer for s in self.specs if s.epochs), default=0
        )
        beside = self.beside()
        kept = Figure.total([*beside.values(), *(f for stage in stages for f in stage.written.values())])
        return Plan(
            samples=self.n,
            world_size=self.world,
            stages=stages,
            beside=beside,
            checkpoint=checkpoint,
            # While it trains, one more than is kept; while shares are joined, the embeddings twice.
            at_once=kept + Figure.estimate(max((self.parts.checkpoints_kept + 1) * checkpoint, self.twice())),
            said=said,
        )

    def twice(self) -> float:
        return 0 if self.world == 1 else max(self.embedded(s) for s in self.specs)

    def embedded(self, spec: StageSpec) -> int:
        return 4 * self.n * self.held(spec).dim

    def units(self) -> int:
        content = self.data.dataset.collate([self.data.dataset[0]])[self.data.dataset.modality]
        return int(Units.of(content).numbers(content).max()) + 1

    def beside(self) -> dict[str, Figure]:
        has_digests = getattr(self.data.dataset, "digests", None) is not None
        n, decoded = self.n, {}
        if self.data.kept == "disk":
            decoded["cache"] = Figure.estimate(n * content_bytes(self.data.dataset))
        found = decoded | {
            "data/ids.jsonl": self.names(),
            "data/digests.npy": Figure.exact(_HEADER + 8 * n)
            if has_digests
            else Figure.within(_HEADER, _HEADER + 8 * n),
            "identities/identities.npy": Figure.exact(_HEADER + 8 * n),
        }
        stages = [self.held(spec).encoder for spec in self.specs]
        least = sum(stages[:1]) if self.parts.stop == "auto" else sum(stages)
        return {**found, "encoder": Figure.within(least, sum(stages))}

    def stage(self, number: int) -> StagePlan:
        spec = self.specs[number]
        per_epoch, of_epoch = self.batches[number]
        warm = spec.optimizer_warm_start_steps if spec.epochs else 0
        maybe = number > 0 and self.parts.stop == "auto"
        steps = per_epoch * spec.epochs + Figure.exact(warm)
        samples = of_epoch * spec.epochs + Figure.exact(warm * spec.batch_size)
        early = maybe or (number > 0 and spec.drift is not None and spec.drift.stop)
        steps, samples = (Figure(0 if early else f.least, f.most, f.estimated) for f in (steps, samples))
        written, checked = self.written(number, steps)
        passes = self.passes(number, samples)
        read = self.read(number, passes, written, checked)
        if maybe:
            written, passes, read = (
                {what: figure.perhaps() for what, figure in figures.items()}
                for figures in (written, passes, read)
            )
        return StagePlan(
            steps=steps,
            samples=samples,
            read=read,
            written=written,
            training=self.training(number) if spec.epochs else {},
            clustering=self.clustering(number) if number and spec.cells != "whole" else {},
            embedding=self.embedding(spec),
            seconds=self.seconds(passes, read, written),
        )

    def written(self, number: int, steps: Figure) -> tuple[dict[str, Figure], Figure]:
        """Bytes of each file, and those that every process reads again to check them."""
        spec, n, home = self.specs[number], self.n, f"stage-{number}"
        mine: dict[str, Figure] = {}
        if number and spec.cells != "whole":
            least, most = self.cells[number]
            vector = narrow(n).itemsize
            mine |= {
                f"{home}/partition/pseudo_labels.npy": Figure.exact(_HEADER + narrow(most).itemsize * n),
                f"{home}/partition/order.npy": Figure.exact(_HEADER + vector * n),
                f"{home}/partition/offsets.npy": Figure.within(
                    _HEADER + vector * (least + 1), _HEADER + vector * (most + 1)
                ),
                f"{home}/partition/cluster_labels.npy": Figure.exact(_HEADER + 8 * n),
            }
        if number and spec.erase != "off":
            marked = Figure.exact(_HEADER + n * self.units())
            mine[f"{home}/erasing/marked.npy"] = marked.perhaps() if spec.erase == "auto" else marked
        checked = Figure.total(mine.values())
        asked = {later.erase for later in self.specs[number + 1 :]} - {"off"}
        if asked:
            saliency = Figure.exact(_HEADER + 2 * n * self.units())
            mine[f"{home}/saliency/saliency.npy"] = saliency.perhaps() if asked == {"auto"} else saliency
        mine[f"{home}/encoder"] = Figure.exact(self.held(spec).encoder)
        mine[f"{home}/embeddings/train.npy"] = Figure.exact(_HEADER + self.embedded(spec))
        if self.n_test is not None:
            size = _HEADER + 4 * self.n_test * self.held(spec).dim
            mine[f"{home}/embeddings/test.npy"] = Figure.exact(size)
        lines = steps * (self.world * _LEDGER)
        mine[f"{home}/ledger-RANK.jsonl"] = Figure(lines.least, lines.most, estimated=True)
        return mine, checked

    def passes(self, number: int, samples: Figure) -> dict[str, Figure]:
        """How many samples each part of a stage goes through."""
        asked = {later.erase for later in self.specs[number + 1 :]} - {"off"}
        found = {
            "copies": Figure.exact(self.n if not number and self.parts.duplicates != "keep" else 0),
            "training": samples,
            "embedding": Figure.exact(self.n + (self.n_test or 0)),
            "saliency": Figure.within(0 if asked == {"auto"} else self.n, self.n if asked else 0),
        }
        return {what: figure for what, figure in found.items() if figure.most}

    def read(self, number: int, passes: Figures, written: Figures, checked: Figure) -> dict[str, Figure]:
        found: dict[str, Figure] = {}
        decoded, stored = content_bytes(self.data.dataset), self.data.stored
        if stored is not None:
            if not number and stored:
                # By each process, unless the first leaves what it decoded for the others.
                times = 1 if self.data.kept == "disk" else self.world
                found["data, first pass"] = Figure.estimate(stored * self.n * times)
            each = {"memory": 0, "disk": decoded, "none": stored}[self.data.kept]
            through = Figure.total(passes.values()) * each
            found["data"] = Figure(through.least, through.most, estimated=True)
        if number and self.specs[number].cells != "whole":
            # Once at least, to be assigned to a cluster.
            found["embeddings"] = Figure.estimate(sum(self.embedded(s) for s in self._clustered(number)))
        lasting = [f for name, f in written.items() if "ledger" not in name]
        found["files, to be sealed"] = Figure.total(lasting)
        if self.world > 1:
            first = Figure.exact(_HEADER + 8 * self.n)  # identities
            found["cells, checked by each process"] = (checked + first) * (self.world - 1)
        return {what: figure for what, figure in found.items() if figure.most}

    def _clustered(self, number: int) -> list[StageSpec]:
        return self.specs[:number] if self.specs[number].cells == "concat" else [self.specs[number - 1]]

    def training(self, number: int) -> dict[str, Figure]:
        spec = self.specs[number]
        of, local = self.held(spec), spec.batch_size // self.world
        split = self.world if self.parts.shard else 1
        share = Figure.exact if split == 1 else lambda value: Figure.estimate(math.ceil(value / split))
        rows, columns = local, spec.batch_size
        if spec.micro_batch_size is not None:
            rows, columns = min(spec.micro_batch_size, local), 0
        least, most = self.cells[number]
        found = {
            "weights": share(of.weights),
            "gradients": share(of.gradients),
            "optimiser": share(of.optimizer),
            "batch and views": Figure.estimate(of.batch * local),
            "kept for the backward": Figure.estimate(of.kept(rows, columns)),
            "sampler": Figure.within(12 * least, 12 * most),
        }
        if self.world > 1 and split == 1:
            found["exchange of gradients"] = Figure.estimate(of.gradients)
        return found | self.data_held()

    def data_held(self) -> dict[str, Figure]:
        """What every process holds of the data."""
        # A string of Python takes 49 bytes beside its letters, and a list 8 for each.
        found = {"names of the samples": Figure.estimate(self.names().most + 54 * self.n)}
        if self.data.kept == "memory":
            found["decoded data"] = Figure.estimate(self.n * content_bytes(self.data.dataset))
        return found

    def names(self) -> Figure:
        """Bytes of a file with all ids; numbers stand in for those that are not known."""
        known = self.data.names
        return Figure.estimate(self.n * (len(str(self.n)) + 3)) if known is None else Figure.exact(known)

    def embedding(self, spec: StageSpec) -> dict[str, Figure]:
        of = self.held(spec)
        chunk = content_bytes(self.data.dataset) + 4 * of.dim
        return {
            "weights": Figure.exact(of.weights),
            "chunk": Figure.exact(EMBEDDED_AT_ONCE * chunk),
            "scratch": Figure.estimate(EMBEDDED_AT_ONCE * of.scratch),
        } | self.data_held()

    def clustering(self, number: int) -> dict[str, Figure]:
        """Of the first process; what the others assign is less."""
        dim = sum(self.held(s).dim for s in self._clustered(number))
        k = self.cells[number][1]
        points = subsample_size(self.n, first_level(k), _POINTS, by_faiss=False)
        return {
            "samples that centers are found from": Figure.estimate(4 * dim * points),
            "chunk that is assigned": Figure.estimate(_ASSIGNED),
            "labels and order": Figure.estimate(_SORTING * self.n),
            "centers": Figure.estimate(4 * dim * k),
        } | self.data_held()

    def _speed(self) -> tuple[float, float] | None:
        if self.given.samples_per_second is not None:
            # A forward pass of one view, where training takes forward and backward, about twice that.
            return self.given.samples_per_second, 3 * self.given.samples_per_second
        if not self.given.calibrate:
            return None
        spec = max(self.specs, key=lambda spec: spec.epochs)
        return speed(self.parts, spec, max(2, spec.batch_size // self.world))

    def seconds(self, passes: Figures, read: Figures, written: Figures) -> dict[str, Figure]:
        found: dict[str, Figure] = {}
        if self.speed is not None:
            rates = {"training": self.speed[0], "embedding": self.speed[1], "saliency": self.speed[0]}
            for what, rate in rates.items():
                if what in passes:
                    spent = passes[what] * (1 / (rate * self.world))
                    found[what] = Figure(spent.least, spent.most, estimated=True)
        if self.given.bytes_per_second is not None:
            moved = Figure.total([*read.values(), *written.values()]) * (1 / self.given.bytes_per_second)
            found["reading and writing"] = Figure(moved.least, moved.most, estimated=True)
        return found

    def said(self) -> Iterator[str]:
        """What was assumed, and what is left out."""
        if self.data.opened:
            yield "Samples that cannot be read, which the run leaves out, are counted."
        else:
            yield f"{self.n:,} samples are given, none was counted; a few stand in for their content."
        yield _KEPT[self.data.kept]
        if self.parts.precision == "auto":
            yield "precision: auto is decided by the run; this is what fp32 takes."
        if self.data.stored is None:
            yield "Reading the data is not in it: give --bytes-per-sample, what one takes where it is stored."
        if any(self.cells[s] != (1, 1) and spec.cells_per_batch for s, spec in enumerate(self.specs)):
            yield "Batches come from single cells, so steps depend on the sizes of the cells."
        if self.parts.stop == "auto":
            yield "The run ends with the first stage that adds next to nothing; all but stage 0 may be none."
        if self.speed is not None:
            measured = self.given.samples_per_second is None
            yield (
                f"Samples a second of one process: {self.speed[0]:,.4g} in training "
                f"({'measured here, without loading' if measured else 'given'}), {self.speed[1]:,.4g} in "
                f"embedding ({'likewise' if measured else 'three times that'}). {self.world} processes count "
                f"as {self.world} times one."
            )
            yield "Finding copies, clustering, choosing cells, evaluation are not in the time: docs/scale.md."
        yield (
            "Memory comes on top of Python and its libraries, about 500 MB. What is kept for the backward is "
            "read off forward passes over 2, 4 and 8 samples; what kernels take for a moment is not in it."
        )
        yield (
            f"Checkpoints come and go, one in {self.parts.checkpoint_seconds:g} s at most, and are not among "
            "the bytes written; nor are logs, manifests, pages and headers of safetensors."
        )


def batches(spec: StageSpec, n: int, cells: tuple[int, int], world_size: int) -> tuple[Figure, Figure]:
    """The batches of an epoch and the samples in them, over all processes.

    Packed batches depend on the number of samples alone. Batches of a single cell depend on how large the
    cells turn out, so they lie between what the worst and the best sizes give.

    Args:
        spec: The stage.
        n: Samples.
        cells: How many cells there are at least and at most.
        world_size: Processes.

    Raises:
        RecipeError: The sampler takes no such batches.

    >>> batches(StageSpec(epochs=1, batch_size=32), 100, (2, 10), world_size=2)[0].most
    3
    """
    size = spec.batch_size
    whole = CellBatchSampler(
        Partition.whole(n),
        size,
        cells_per_batch=spec.cells_per_batch,
        min_batch_size=spec.min_batch_size,
        world_size=world_size,
    )
    if spec.cells_per_batch is None or cells == (1, 1):
        full, rest = divmod(n, size)
        used = n if spec.cells_per_batch else full * size
        if spec.cells_per_batch:
            used = full * size + (len(whole) - full) * (rest // world_size * world_size)
        return Figure.exact(len(whole)), Figure.exact(used)
    floor = max(2, size // 4) if spec.min_batch_size is None else spec.min_batch_size
    floor = math.ceil(floor / world_size) * world_size  # a batch is cut for all processes
    short = floor < size  # whether there are any
    lost = floor - 1 if short else size - 1  # of a cell, at most
    few = math.ceil(max(0, n - cells[1] * lost) / size)
    shorts = min(cells[1], n // floor) if short else 0
    many = shorts + (n - shorts * floor) // size
    used = max(0, n - cells[1] * max(lost, world_size - 1))
    return Figure.within(max(1, few), many), Figure.within(max(floor, used), n)


def _cells(specs: Sequence[StageSpec], n: int) -> list[tuple[int, int]]:
    """For each stage how many cells it has at least and at most."""
    found, joint = [(1, 1)], 1  # labels of all stages so far, intersected
    for spec in specs[1:]:
        if spec.cells == "whole":
            found.append((1, 1))
            continue
        k = _clusters(spec, n)
        if spec.cells == "nested":
            k = k + joint if spec.n_clusters is None else k * joint
        most = {"last": k, "intersect": k * joint}.get(spec.cells, k)
        joint = min(n, k if spec.cells == "nested" else k * joint)
        found.append((1, min(most, n if spec.cells == "last" else n // 2)))
    return found


def _clusters(spec: StageSpec, n: int) -> int:
    """The most clusters that a stage asks for."""
    size = spec.cell_size
    if isinstance(size, str):
        size = min(granularity.candidates(size, n))
    return most_clusters(resolved_clusters(n, spec.n_clusters, size))
