"""A real Exim, which enforces synchronization, takes all kinds of mail."""

from collections.abc import Callable, Iterator

import pytest

from scenarios.assortment import deliver, jobs, mostly_refused, nobody_takes
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


@pytest.mark.parametrize(("chunking", "least"), [("off", 0.0), ("on", 0.9)])
def test_a_thousand_mails_of_all_kinds(
    stage: Stage, exim: Exim, chunking: str, least: float
) -> None:
    wanted = jobs(range(1_000))
    deliver(stage, exim, wanted, url=url(exim), chunking=chunking)
    expected = sum(not nobody_takes(job) for job in wanted.values())
    by_data, by_bdat = exim.taken("L"), exim.taken("L K")
    assert by_data + by_bdat == expected
    # The first mail behind an idle moment goes by DATA in any case.
    assert by_bdat >= least * expected
    assert by_bdat == 0 or chunking == "on"


@pytest.mark.parametrize("chunking", ["off", "on"])
def test_one_refused_mail_after_the_other(stage: Stage, exim: Exim, chunking: str) -> None:
    # A RSET ends each of them, and Exim takes ten commands a connection that serve no mail.
    deliver(stage, exim, mostly_refused(), url=url(exim), chunking=chunking)


def test_who_speaks_out_of_turn_is_told_off(exim: Exim) -> None:
    assert exim.is_told_off()


def url(exim: Exim) -> str:
    """Return where it listens."""
    return f"smtp://127.0.0.1:{exim.port}"
