"""Commands install signal handlers temporarily and leave ignored signals alone."""

from __future__ import annotations

import signal

import pytest

from hf_summary_writer.cli.signals import signal_handlers, unignored


def test_an_ignored_signal_stays_ignored_as_with_nohup() -> None:
    with signal_handlers({signal.SIGHUP: signal.SIG_IGN}):
        assert unignored(("SIGHUP", "SIGTERM", "SIG_OF_NO_SYSTEM")) == [signal.SIGTERM]


def test_the_earlier_handlers_are_restored_after_an_exception() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), signal_handlers({signal.SIGTERM: signal.default_int_handler}):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
