"""Several processes that work on one thing, as `torchrun` would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What `torchrun` tells a process."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", ""))),
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
        "OVERTONE_TIMEOUT": "60",
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def start(world_size: int, code: str, *arguments: object) -> list[subprocess.Popen[str]]:
    """Runs a piece of code in each of several joined processes."""
    port = free_port()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return [
        subprocess.Popen(
            command,
            env=environment(rank, world_size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]


def finished(processes: list[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str]]:
    """The exit code and the output of each; one that does not end is killed."""
    found = []
    for process in processes:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        found.append((process.returncode, output))
    return found
