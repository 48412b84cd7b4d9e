"""How commands end."""

import os
import signal
import time
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

from flows.command import clear_errors


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
