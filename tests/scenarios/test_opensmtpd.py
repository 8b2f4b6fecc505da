"""A real OpenSMTPD, which doesn't know PIPELINING, takes all kinds of mail."""

from collections.abc import Callable, Iterator

import pytest

from scenarios.assortment import CONCURRENCY, deliver, jobs
from scenarios.opensmtpd_host import OpenSMTPD
from scenarios.stage import Stage


@pytest.fixture
def opensmtpd(needs_program: Callable[[str], str], needs_mounts: None) -> Iterator[OpenSMTPD]:
    """Give a running OpenSMTPD of our own."""
    host = OpenSMTPD(needs_program("smtpd"))
    try:
        host.start()
        yield host
    finally:
        host.stop()


def test_a_thousand_mails_of_all_kinds(stage: Stage, opensmtpd: OpenSMTPD) -> None:
    deliver(stage, opensmtpd, jobs(range(1_000)), url=f"smtp://127.0.0.1:{opensmtpd.port}")
    # It takes a hundred on each connection, and says so first when there is one more.
    assert opensmtpd.log.count("Too many messages sent") <= CONCURRENCY


def test_who_speaks_out_of_turn_is_told_off(opensmtpd: OpenSMTPD) -> None:
    assert opensmtpd.is_told_off()
