from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from overtone import interrupts

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_nothing_until_it_is_asked_for_and_then_carries_its_exit_code(
    number: signal.Signals,
) -> None:
    with interrupts.catching():
        assert not interrupts.received()
        interrupts.raise_if_requested()
        signal.raise_signal(number)
        assert interrupts.received()
        with pytest.raises(interrupts.Stopped, match=number.name) as stopped:
            interrupts.raise_if_requested()
    assert stopped.value.exit_code == 128 + number


def test_afterwards_the_handlers_are_as_before_and_the_signal_is_forgotten() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with interrupts.catching():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert not interrupts.received()


def test_a_second_signal_ends_the_process_at_once_unless_it_is_the_first_passed_on() -> None:
    code = (
        "import os, signal, time; from overtone import interrupts\n"
        "with interrupts.catching():\n"
        "    os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('lives', flush=True); time.sleep(interrupts.TOGETHER)\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('still lives')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "lives\n")


def test_in_another_thread_the_block_runs_as_it_is() -> None:
    ran: list[bool] = []

    def block() -> None:
        with interrupts.catching():
            ran.append(bool(interrupts.received()))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert ran == [False]
