"""Netlists: pieces of transistor circuits around one net, as graphs of devices, pins and nets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from overtone.contracts import Batch, Sample
from overtone.errors import RecipeError
from overtone.rng import uniforms

# Transistors as (type, gate, one end, other end) between named nets; every gate drives `out`.
GATES: dict[str, str] = {
    "inverter": "p a vdd out, n a out gnd",
    "clocked inverter": "p a vdd m, p b m out, n b out k, n a k gnd",
    "nand2": "p a vdd out, p b vdd out, n a out m, n b m gnd",
    "nor2": "p a vdd m, p b m out, n a out gnd, n b out gnd",
    "nand3": "p a vdd out, p b vdd out, p c vdd out, n a out m, n b m k, n c k gnd",
    "nor3": "p a vdd m, p b m k, p c k out, n a out gnd, n b out gnd, n c out gnd",
    "and-or-invert": "p a vdd m, p b vdd m, p c m out, n a out k, n b k gnd, n c out gnd",
    "or-and-invert": "p a vdd m, p b m out, p c vdd out, n a out k, n b out k, n c k gnd",
}
DRIVES = (1, 2, 4, 8)
"""Widths of a gate's transistors."""
MOST_LOADS = 4
_KINDS = ("n", "p", "gate pin", "end pin", "net", "vdd", "gnd")
FEATURES = len(_KINDS) + 1
"""Of a node: its kind, one of seven, and for a transistor the logarithm of its width."""
_COLUMNS = 3 + 1 + 3 * MOST_LOADS
_TRANSISTORS = {
    name: [tuple(one.split()) for one in said.split(", ")] for name, said in GATES.items()
}  # fmt: skip


class Netlists:
    """Samples `{"index": int, "graph": (m, 8) float32, "edges": (e, 2) int64}`.

    Node 0 is the net that the labels are about. Attributes as in `contracts.Dataset`.
    """

    def __init__(
        self,
        graphs: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
        ids: Sequence[str],
        labels: Mapping[str, NDArray[np.int64]],
        label_names: Mapping[str, Sequence[str]],
    ) -> None:
        self.modality = "graph"
        self.ids, self.labels, self.label_names = ids, labels, label_names
        digest = hashlib.blake2b(repr(ids).encode(), digest_size=16)
        for nodes, edges in graphs:
            digest.update(repr(nodes.shape).encode() + nodes.tobytes() + edges.tobytes())
        self.fingerprint = digest.hexdigest()
        self._graphs = graphs

    def __len__(self) -> int:
        return len(self._graphs)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        nodes, edges = self._graphs[index]
        return {
            "index": index,
            "graph": torch.from_numpy(nodes.copy()),
            "edges": torch.from_numpy(edges.copy()),
        }

    def collate(self, samples: list[Sample]) -> Batch:
        """`{"index": (B,), "graph": (B, M, 8), "adjacency": (B, M, M) of 0 and 1}`, zero where no node is."""
        nodes = pad_sequence([sample["graph"] for sample in samples], batch_first=True)
        adjacency = torch.zeros(len(samples), nodes.shape[1], nodes.shape[1])
        for row, sample in enumerate(samples):
            one, other = sample["edges"].T
            adjacency[row, one, other] = adjacency[row, other, one] = 1.0
        return {
            "index": torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
            "graph": nodes,
            "adjacency": adjacency,
        }


def netlists(n: int, *, seed: int = 0, start: int = 0) -> Netlists:
    """The output net of a gate, with the gate and those that it drives.

    Attributes of the gate: `gate`, 8 kinds, `drive`, 4 widths, and `fanout`, 1 to 4 gates driven;
    independent. The kinds of those and the widths of all vary. Sample i is a function of (seed, start + i)
    alone: take another `start` for a test set.

    Args:
        n: How many.
        seed: Address of the draws, with "netlists".
        start: Number of the first sample.

    Raises:
        RecipeError: Fewer than one.

    >>> dataset = netlists(4)
    >>> batch = dataset.collate([dataset[0], dataset[1]])
    >>> batch["graph"].shape[2], torch.equal(batch["adjacency"], batch["adjacency"].mT)
    (8, True)
    """
    if n < 1:
        raise RecipeError(f"netlists: n={n}; give at least 1")
    draws = uniforms(torch.arange(start, start + n), _COLUMNS, seed, "netlists").double().numpy()
    kinds = (draws[:, :3] * [len(GATES), len(DRIVES), MOST_LOADS]).astype(np.int64)
    names = {
        "gate": tuple(GATES),
        "drive": tuple(map(str, DRIVES)),
        "fanout": tuple(str(1 + loads) for loads in range(MOST_LOADS)),
    }
    return Netlists(
        [_drawn(kind, row[3:]) for kind, row in zip(kinds, draws, strict=True)],
        [str(start + i) for i in range(n)],
        {name: kinds[:, column].copy() for column, name in enumerate(names)},
        names,
    )


def _drawn(
    kind: NDArray[np.int64], draws: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    gate, drive, loads = list(GATES)[kind[0]], DRIVES[kind[1]], int(kind[2]) + 1
    numbers = iter(draws)
    piece = _Piece(numbers)
    piece.place(gate, drive, {"out": 0})
    for _ in range(loads):
        load = list(GATES)[int(next(numbers) * len(GATES))]
        piece.place(load, DRIVES[int(next(numbers) * len(DRIVES))], {"a": 0})
    nodes = np.zeros((len(piece.kinds), FEATURES), np.float32)
    nodes[np.arange(len(nodes)), piece.kinds] = 1
    nodes[:, -1] = piece.widths
    return nodes, np.array(piece.edges, dtype=np.int64)


class _Piece:
    """A circuit that grows gate by gate; node 0 is a net."""

    def __init__(self, numbers: Iterator[float]) -> None:
        self.kinds, self.widths, self.edges = [_KINDS.index("net")], [0.0], list[tuple[int, int]]()
        self._numbers = numbers

    def place(self, gate: str, drive: int, nets: dict[str, int]) -> None:
        """Adds a gate, of whose nets one is there already."""
        width = np.log2(drive) + 0.8 * (next(self._numbers) - 0.5)
        for kind, *ends in _TRANSISTORS[gate]:
            device = self._node(kind, width)
            for pin, net in zip(("gate pin", "end pin", "end pin"), ends, strict=True):
                if net not in nets:
                    nets[net] = self._node(net if net in _KINDS else "net")
                between = self._node(pin)
                self.edges += [(device, between), (between, nets[net])]

    def _node(self, kind: str, width: float = 0.0) -> int:
        self.kinds.append(_KINDS.index(kind))
        self.widths.append(width)
        return len(self.kinds) - 1
