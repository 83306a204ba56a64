"""Interrupts: where they take effect, and that none is lost."""

import contextlib
import os
import signal

import pytest

from workhorse.runs.interrupt import Interrupt


def ask():
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_waits_for_a_block_that_allows_it():
    done = []
    with Interrupt() as interrupt:
        ask()
        done.append("half")
        with pytest.raises(KeyboardInterrupt), interrupt.allowed():
            done.append("never")
    assert done == ["half"]


def interrupted(work):
    """Do the work in a block that allows an interrupt; tell whether it ended in one."""
    with Interrupt() as interrupt:
        try:
            with interrupt.allowed():
                work()
        except KeyboardInterrupt:
            return True
    return False


def test_an_interrupt_within_the_block_takes_effect_at_once():
    done = []
    assert interrupted(lambda: (ask(), done.append("never")))
    assert done == []


def test_an_interrupt_that_something_swallows_takes_effect_at_the_end_of_the_block():
    done = []

    def work():
        with contextlib.suppress(KeyboardInterrupt):  # as JAX's callback of the garbage collector
            ask()
        done.append("the rest")

    assert interrupted(work)
    assert done == ["the rest"]


def test_without_an_interrupt_nothing_happens_and_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt, interrupt.allowed():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
