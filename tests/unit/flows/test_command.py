"""How commands end."""

import os
import signal
import threading
import time
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

from flows.command import clear_errors
from flows.ending import first_of_all, of_the_command


def _run(work: Callable[[], None]) -> Result:
    @click.command()
    @clear_errors
    def command() -> None:
        work()

    return CliRunner().invoke(command)


def _terminate_and_wait() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60.0)


def test_sigterm_ends_a_command_with_status_143() -> None:
    ended = _run(_terminate_and_wait)
    assert ended.exit_code == 143
    assert "the same command goes on" in ended.output


def test_sigterm_passes_through_what_tidies_up_after_ctrl_c() -> None:
    tidied = []

    def work() -> None:
        try:
            _terminate_and_wait()
        except KeyboardInterrupt:
            tidied.append(True)
            raise

    assert _run(work).exit_code == 143
    assert tidied


def test_an_error_while_tidying_up_after_sigterm_does_not_hide_it() -> None:
    def work() -> None:
        try:
            _terminate_and_wait()
        finally:
            raise RuntimeError("half open")

    assert _run(work).exit_code == 143


def test_a_second_sigterm_does_not_disturb_tidying_up() -> None:
    def work() -> None:
        try:
            _terminate_and_wait()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    assert _run(work).exit_code == 143


@pytest.mark.parametrize("work", [lambda: None, _terminate_and_wait])
def test_afterwards_sigterm_means_what_it_meant_before(work: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    _run(work)
    assert signal.getsignal(signal.SIGTERM) is before


def _within_100_s(is_so: Callable[[], bool]) -> None:
    limit_s = time.monotonic() + 100.0
    while not is_so():
        assert time.monotonic() < limit_s
        time.sleep(0.01)


def test_what_comes_first_is_done_while_another_handler_of_sigterm_keeps_the_main_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.ending.END_S", 200.0)
    done = threading.Event()

    def work() -> None:
        before = signal.signal(signal.SIGTERM, lambda *_: _within_100_s(done.is_set))
        with first_of_all(done.set):
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)

    _run(work)
    assert done.is_set()


def test_what_is_to_come_first_and_is_told_too_late_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.ending.END_S", 200.0)
    done = threading.Event()

    def work() -> None:
        try:
            _terminate_and_wait()
        finally:
            with first_of_all(done.set):
                _within_100_s(done.is_set)

    assert _run(work).exit_code == 143


def test_in_a_flow_a_second_sigterm_does_not_disturb_tidying_up() -> None:
    tidied = []

    def prefects(*_: object) -> None:
        raise RuntimeError("terminated by Prefect")

    def work() -> None:
        before = signal.signal(signal.SIGTERM, prefects)
        try:
            with of_the_command():
                try:
                    _terminate_and_wait()
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)
                    tidied.append(True)
        finally:
            signal.signal(signal.SIGTERM, before)

    assert _run(work).exit_code == 143
    assert tidied
