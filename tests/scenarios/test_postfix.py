"""A real, strict Postfix takes all kinds of mail over STARTTLS: each arrives as it was meant."""

import re
from collections.abc import Callable, Iterator

import pytest
import trustme

from scenarios.assortment import deliver, jobs, mostly_refused
from scenarios.postfix_host import Postfix
from scenarios.stage import Stage, until


@pytest.fixture(scope="module")
def one_postfix(
    tmp_path_factory: pytest.TempPathFactory,
    needs_program: Callable[[str], str],
    needs_root: None,
) -> Iterator[Postfix]:
    """Run one Postfix of our own for all tests: it takes seconds to start."""
    program = needs_program("postfix")
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca")
    issued.private_key_pem.write_to_path(folder / "key")
    issued.cert_chain_pems[0].write_to_path(folder / "cert")
    host = Postfix(program, {name: str(folder / name) for name in ("ca", "cert", "key")})
    try:
        host.start()
        yield host
    finally:
        host.stop()


@pytest.fixture
def postfix(one_postfix: Postfix) -> Postfix:
    """Give that Postfix, without what it took before."""
    one_postfix.forget()
    return one_postfix


@pytest.mark.parametrize("chunking", ["off", "on"])
def test_a_thousand_mails_of_all_kinds(stage: Stage, postfix: Postfix, chunking: str) -> None:
    deliver(stage, postfix, jobs(range(1_000)), **relay(postfix), chunking=chunking)
    assert "TLS connection established" in postfix.log
    verb, other = ("bdat", "data") if chunking == "on" else ("data", "bdat")
    until(lambda: heard(postfix, verb) > 0)
    # The first mail behind an idle moment goes by DATA in any case.
    assert heard(postfix, other) <= (heard(postfix, verb) // 10 if chunking == "on" else 0)


@pytest.mark.parametrize("chunking", ["off", "on"])
def test_one_refused_mail_after_the_other(stage: Stage, postfix: Postfix, chunking: str) -> None:
    # Postfix slows down after ten errors in a row, and hangs up after twenty.
    deliver(stage, postfix, mostly_refused(), **relay(postfix), chunking=chunking)


def test_who_speaks_out_of_turn_is_told_off(postfix: Postfix) -> None:
    assert postfix.is_told_off()


def relay(postfix: Postfix) -> dict[str, str]:
    """Return where it listens, under the name that it can prove."""
    return {"url": f"smtp+starttls://localhost:{postfix.port}", "ca_file": postfix.files["ca"]}


def heard(postfix: Postfix, verb: str) -> int:
    """Return how often Postfix has heard a verb, on connections that have ended."""
    return sum(int(number) for number in re.findall(rf" {verb}=(?:\d+/)?(\d+)", postfix.log))
