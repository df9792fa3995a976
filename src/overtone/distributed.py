"""One run on many processes: the only place that knows of `torch.distributed`.

Every process runs the same code. What is made once is made by the first, while the others wait (`in_turn`);
an error on one becomes an error on all (`together`); the loss of each process is that of its own rows against
the columns of all (`gathered`), whose gradients the processes average (`replicated`). Started without
`torchrun`, there is one process and nothing here does anything.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parameters_to_vector

from overtone import interrupts
from overtone.errors import OvertoneError, ProcessError

T = TypeVar("T")

TIMEOUT = "OVERTONE_TIMEOUT"
"""Environment variable: after how many seconds of silence a process counts as lost; 600 by default."""

_ALONE = timedelta(days=2)  # how long the first process may work while the others wait
_GRACE = 15.0  # seconds in which an exchange that failed may say it better than the pulse
_LAST_WORDS = 5.0  # seconds for the survivors of a lost process to say that they are there
_HERE = "is here"

_REMEDY = (
    "The last checkpoint is kept; look at the output of that process, then run the same command again, on as "
    f"many processes as you like. If it was only slow, raise {TIMEOUT}."
)

Works = Mapping[str, Callable[..., Any]]

_waiting: Any = None  # the group in which processes wait for one that works alone
_works: Works = {}


def rank() -> int:
    """The number of this process, 0 for the first."""
    return distributed.get_rank() if _several() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _several() else 1


def is_first() -> bool:
    """Whether this process is the one that writes what all share."""
    return rank() == 0


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that `torchrun` started, for as long as the block lasts.

    Raises:
        ProcessError: The others did not come, or a process was lost inside the block.
    """
    global _waiting
    if "TORCHELASTIC_RUN_ID" not in os.environ or _several():
        yield
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    seconds = float(os.environ.get(TIMEOUT, "600"))
    with lost_processes():
        distributed.init_process_group(backend, timeout=timedelta(seconds=seconds))
        _waiting = distributed.new_group(backend="gloo", timeout=_ALONE)
    try:
        # When one process ends, `torchrun` asks the others to: they must live to say which it was.
        with interrupts.catching(), _Pulse(seconds + _GRACE), lost_processes():
            yield
    except Exception as error:
        with suppress(Exception):  # what is left of the connections must not hide what happened
            _say(f"ended: {error}")
            distributed.destroy_process_group()
        raise
    else:
        distributed.destroy_process_group()
    finally:
        _waiting = None


class _Pulse:
    """A thread that says once a second that this process lives, and ends it when another falls silent.

    Whoever exchanges something with a process that froze hears of it after a while. But where one works alone
    the others wait for as long as it takes, and nothing can wake them.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._left = seconds, threading.Event()
        # A connection of its own: the one of this process may be in use, waiting for something.
        self._store = distributed.distributed_c10d._get_default_store().clone()
        self._names = [f"overtone-pulse-{number}" for number in range(world_size())]
        self._own = self._names[rank()]
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(_LAST_WORDS)  # so that the others hear of it, and do not take it for silence

    def _beat(self) -> None:
        heard: dict[str, tuple[bytes, float]] = {}  # what was last heard of each, and since when
        with suppress(Exception):  # the store has gone with the process that held it, as all will hear
            for beat in count():
                self._store.set(self._own, str(beat))
                now = time.monotonic()
                for name, said in zip(self._names, self._store.multi_get(self._names), strict=True):
                    if heard.get(name, (b"", 0.0))[0] != said:
                        heard[name] = said, now
                if silent := [n for n, name in enumerate(self._names) if self._is_silent(*heard[name], now)]:
                    self._end(silent)
                if self._left.wait(1.0):
                    self._store.set(self._own, "left")
                    return

    def _is_silent(self, said: bytes, since: float, now: float) -> bool:
        return said != b"left" and now - since > self.seconds

    def _end(self, silent: list[int]) -> None:
        error = ProcessError(
            f"process {_listed(silent)} of {len(self._names)} has given no sign of life for "
            f"{self.seconds:.0f} s. {_REMEDY}"
        )
        print(f"overtone: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)  # the other threads wait inside calls that nothing can interrupt


@contextmanager
def lost_processes() -> Iterator[None]:
    """Turns the many errors of a connection that broke into one that names the processes lost."""
    try:
        yield
    except (RuntimeError, distributed.DistError) as error:
        text = str(error).strip()
        if not isinstance(error, distributed.DistError) and "gloo" not in text:
            raise
        reason = re.sub(r"^\[\S*\] ", "", text).splitlines()[0].partition(". ")[0]
        raise ProcessError(f"{_lost()} ({reason}). {_REMEDY}") from error


def _lost() -> str:
    """Who did not answer, found out by those who are left through the store of `torchrun`."""
    if not _several():
        return "the processes did not find each other"
    words: dict[int, str] = {}
    with suppress(Exception):  # the store may be gone as well
        _say(_HERE)
        until = time.monotonic() + _LAST_WORDS
        words = {number: _last_words(number, until) for number in range(world_size())}
    silent = [number for number, said in words.items() if not said]
    found = [f"process {_listed(silent)} of {world_size()} was lost"] if silent else []
    found += [f"process {n} of {world_size()} {said}" for n, said in words.items() if said not in ("", _HERE)]
    return "; ".join(found) or f"one of {world_size()} processes was lost"


def _say(words: str) -> None:
    """Leaves word for those who wonder what became of this process; the first word counts."""
    distributed.distributed_c10d._get_default_store().compare_set(f"overtone-words-{rank()}", "", words)


def _last_words(number: int, until: float) -> str:
    """What a process said before it went, waiting for it until some time; empty where it said nothing."""
    store, name = distributed.distributed_c10d._get_default_store(), f"overtone-words-{number}"
    while not store.check([name]):
        if time.monotonic() > until:
            return ""
        time.sleep(0.1)
    words: str = store.get(name).decode()
    return words


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


@contextmanager
def together() -> Iterator[None]:
    """A block at whose end every process learns whether any has failed; then all of them fail.

    Raises:
        OvertoneError: This process's own, or the first of another, with its exit code.
    """
    failure = None
    try:
        yield
    except OvertoneError as error:
        failure = error
    said = _exchanged(None if failure is None else (str(failure), failure.exit_code))
    if failure is not None:
        raise failure
    for number, found in enumerate(said):
        if found is not None:
            other = OvertoneError(f"process {number}: {found[0]}")
            other.exit_code = found[1]
            raise other


def _exchanged(value: T) -> list[T]:
    if not _several():
        return [value]
    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, value, group=_waiting)
    return found


def in_turn(make: Callable[[], T], works: Works | None = None) -> T:
    """What `make` gives, the first process ahead of the others: what it makes on disk they find made.

    Args:
        make: Called on all processes, on the first ahead of the others.
        works: What `make` may ask all processes to do meanwhile, by `all_do`.

    >>> in_turn(lambda: 3)
    3
    """
    global _works
    _works = works or {}
    with together():
        result = _led(make) if is_first() else _served()
    if world_size() > 1:
        with together():
            result = result if is_first() else make()
    return result


def _led(make: Callable[[], T]) -> T:
    try:
        return make()
    finally:
        _ordered(None)


def _served() -> Any:
    """Does what the first process asks for, until it is done; gives None."""
    while (order := _ordered(None)) is not None:
        with suppress(OvertoneError):  # which the first has heard of, and which will end all
            _do(order)
    return None


def all_do(name: str, *arguments: object) -> list[Any]:
    """Has every process do one of the works of `in_turn`, in which this process is leading.

    Returns:
        What each found, in their order.
    """
    return _do(_ordered((name, *arguments)))


def _do(order: Any) -> list[Any]:
    with together():
        found = _works[order[0]](*order[1:])
    return collected(found)


def _ordered(order: Any) -> Any:
    """What the first process asks for, told to all."""
    if not _several():
        return order
    said = [order]
    distributed.broadcast_object_list(said, src=0, group=_waiting)
    return said[0]


def collected(value: T) -> list[T]:
    """What each process has, in their order, at the first process; at the others nothing.

    >>> collected(3)
    [3]
    """
    if not _several():
        return [value]
    found: list[Any] | None = [None] * world_size() if is_first() else None
    distributed.gather_object(value, found, dst=0, group=_waiting)
    return found or []


def dealt(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Deals tasks out to the processes.

    Returns:
        What they give, in their order, at the first process; at the others nothing.

    >>> dealt([lambda: 1, lambda: 2])
    [1, 2]
    """
    with together():
        own = [task() for task in tasks[rank() :: world_size()]]
    found = collected(own)
    return [found[n % len(found)][n // len(found)] for n in range(len(tasks))] if found else []


def own_share(n: int, multiple: int) -> range:
    """The rows of this process, of n that all share out; each begins at a multiple.

    >>> own_share(1000, 512)
    range(0, 1000)
    """
    length = -(-n // (multiple * world_size())) * multiple
    return range(min(n, rank() * length), min(n, (rank() + 1) * length))


def by_first(context: Callable[[], AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
    """A context that only the first process enters, such as a lock."""
    return context() if is_first() else nullcontext()


def largest(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """The largest of each value over all processes.

    >>> largest([1.0, 0.0])
    [1.0, 0.0]
    """
    if not _several():
        return list(values)
    found = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return found.tolist()


def mean(value: float, device: torch.device | str = "cpu") -> float:
    """The mean of a number over all processes."""
    if not _several():
        return value
    found = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(found)
    return float(found) / world_size()


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of values of which each process has another number, a scalar; of none it is 0.

    Its mean over the processes, and so that of the gradients, is what one process would have of them all.

    >>> mean_of_all(torch.tensor([1.0, 2.0])), mean_of_all(torch.tensor([]))
    (tensor(1.5000), tensor(0.))
    """
    counts = everyones(torch.tensor([len(values)], device=values.device))
    return values.sum() / counts.float().mean().clamp_min(1 / len(counts))


def everyones(rows: Tensor) -> Tensor:
    """The rows of all processes, (W n, ...), those of the first before those of the second; no gradient."""
    if not _several():
        return rows
    found = [torch.empty_like(rows) for _ in range(world_size())]
    distributed.all_gather(found, rows.contiguous())
    return torch.cat(found)


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, (W n, d), with a gradient: each row's is the sum over all processes.

    With the mean loss of the own rows against these columns on each process, and gradients averaged over
    the processes, the result is the gradient of the whole batch, also of a temperature.

    Args:
        rows: (n, d), as many on each process.

    >>> gathered(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if not _several():
        return rows
    found: Tensor = _Gathered.apply(rows)
    return found


class _Gathered(torch.autograd.Function):
    """By hand: the plain gather has no gradient, and not every backend has one that sums."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.own = slice(rank() * len(rows), (rank() + 1) * len(rows))
        return everyones(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_columns: Tensor) -> Tensor:
        summed = d_columns.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed[ctx.own]


def replicated(module: nn.Module) -> nn.Module:
    """A module whose backward averages the gradients over the processes; itself where there is one."""
    if not _several():
        return module
    device = next(module.parameters()).device
    # Its buckets stay as they are first laid out only where unused parameters are looked for: a resumed
    # run adds up in the same order as one that was not interrupted.
    return nn.parallel.DistributedDataParallel(
        module, device_ids=[device] if device.type == "cuda" else None, find_unused_parameters=True
    )


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Averages gradients over the processes, for a backward that `replicated` or `shard` did not see."""
    taught = [parameter for parameter in parameters if parameter.requires_grad and not _is_split(parameter)]
    if not _several() or not taught:
        return
    for parameter in taught:
        if parameter.grad is None:  # on another process it may have one
            parameter.grad = torch.zeros_like(parameter)
    flat = parameters_to_vector(cast(Tensor, parameter.grad) for parameter in taught)
    distributed.all_reduce(flat)
    flat /= world_size()
    for parameter, own in zip(taught, torch.split(flat, [p.numel() for p in taught]), strict=True):
        parameter.grad = own.view_as(parameter)


def synchronised(module: nn.Module) -> nn.Module:
    """A module whose batch norms use the statistics of all processes, which only CUDA can do."""
    if not _several() or not torch.cuda.is_available():
        return module
    synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return synced


def shard(method: nn.Module) -> None:
    """Splits parameters, gradients and optimiser state over the processes (`fully_shard`), in place.

    Args:
        method: Has an `encoder`, which can be called by itself, and a `step`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(next(method.parameters()).device.type, (world_size(),))
    scalars = {parameter for parameter in method.parameters() if parameter.ndim == 0}  # cannot be split
    for module in (method.encoder, method):
        fully_shard(cast(nn.Module, module), mesh=mesh, ignored_params=scalars)
    register_fsdp_forward_method(method, "step")


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` was called on a module or on the one around it."""
    return any(_is_split(parameter) for parameter in module.parameters())


def whole(value: Tensor) -> Tensor:
    """A tensor with the parts that other processes hold; called on all of them."""
    if not _is_split(value):
        return value
    full: Tensor = value.full_tensor()  # type: ignore[attr-defined]
    return full


def split_like(value: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, split as another of its shape is, if that one is split."""
    if not _is_split(pattern) or value.shape != pattern.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)  # type: ignore[attr-defined]


def _is_split(value: Tensor) -> bool:
    return hasattr(value, "full_tensor")
