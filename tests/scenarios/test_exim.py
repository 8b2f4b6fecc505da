"""A real Exim, which enforces synchronization, takes all kinds of mail."""

from collections.abc import Callable, Iterator

import pytest

from scenarios.assortment import deliver, jobs, nobody_takes
from scenarios.exim_host import Exim
from scenarios.stage import Stage


@pytest.fixture
def exim(needs_program: Callable[[str], str], needs_mounts: None) -> Iterator[Exim]:
    """Give a running Exim of our own."""
    host = Exim(needs_program("exim4"))
    try:
        host.start()
        yield host
    finally:
        host.stop()


def test_a_thousand_mails_of_all_kinds(stage: Stage, exim: Exim) -> None:
    deliver(stage, exim, jobs(range(1_000)), url=url(exim))


@pytest.mark.xfail(reason="a connection spends more RSETs than Exim allows", strict=False)
def test_one_refused_mail_after_the_other(stage: Stage, exim: Exim) -> None:
    # A RSET ends each of them, and Exim takes ten commands a connection that serve no mail.
    refused = {label: job for label, job in jobs(range(1_500)).items() if nobody_takes(job)}
    taken = dict(list(jobs(range(100)).items())[:2])
    deliver(stage, exim, refused | taken, url=url(exim))


def test_who_speaks_out_of_turn_is_told_off(exim: Exim) -> None:
    assert exim.is_told_off()


def url(exim: Exim) -> str:
    """Return where it listens."""
    return f"smtp://127.0.0.1:{exim.port}"
