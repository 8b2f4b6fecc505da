"""Hosts that can't prove who they are, can't do TLS, or refuse the login; and those that can."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme

from scenarios.stage import Host, Process, Stage, mail, once_each, until, users

USER, PASSWORD = "ann@example.com", "open:sesame/%"
LOGIN = "ann%40example.com"
TOKENS = {USER: "ya29.vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGE="}
LOGINS = {"logins": {USER: PASSWORD}, "policy": {"require_auth": True, "require_tls": True}}


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """Give an authority that nobody knows but who reads ca.pem."""
    known = trustme.CA()
    known.cert_pem.write_to_path(tmp_path / "ca.pem")
    return known


def certificate(stage: Stage, authority: trustme.CA, *names: str) -> Mapping[str, str]:
    """Write a certificate for `names`, and return where a host finds it."""
    issued = authority.issue_cert(*(names or ("localhost",)))
    cert, key = stage.folder / "host.pem", stage.folder / "host.key"
    issued.private_key_pem.write_to_path(key)
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return {"cert": str(cert), "key": str(key)}


def worker_for(
    stage: Stage, url: str, *, password: str | None = PASSWORD, more: str = "", ca: bool = True
) -> Process:
    """Start a worker with `url` in its geomail.toml."""
    file = stage.folder / "geomail.toml"
    ca_file = f'ca_file = "{stage.folder / "ca.pem"}"\n' if ca else ""
    file.write_text(f'[relay.default]\nurl = "{url}"\n{ca_file}{more}')
    given: dict[str, Any] = {"command_s": 0.7}
    if password:
        given["relay_password"] = password
    return stage.worker("--config", str(file), **given)


def delivers(stage: Stage, host: Host, worker: Process, *, count: int = 50) -> None:
    """Check that all mails arrive, and that nobody was told the password."""
    host.has_taken(count)
    until(stage.is_clean)
    once_each(host.arrivals(), users(count))
    keeps_the_secret(stage, worker)


def keeps_the_secret(stage: Stage, worker: Process) -> None:
    """Check that the password stands nowhere."""
    for form in (PASSWORD, "open%3Asesame", "b3BlbjpzZXNhbWUvJQ=="):
        assert form not in worker.stderr + worker.stdout
        assert form.encode() not in stage.dump()
        assert form not in Path(f"/proc/{worker.pid}/cmdline").read_text()


def refuses(stage: Stage, host: Host, worker: Process, *words: str) -> None:
    """Check that nothing goes out, nothing is lost or counted, and that the log says why."""
    worker.says("host_failed")
    until(lambda: worker.stderr.count("host_failed") >= 2)
    until(lambda: stage.counts().in_flight <= 1)
    assert stage.held() == 50
    assert stage.counts().dead == 0
    assert b'"tries"' not in stage.dump()
    assert not host.look()
    for word in words:
        assert word in worker.stderr
    keeps_the_secret(stage, worker)


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN NTLM", "SCRAM-SHA-256 PLAIN", "CRAM-MD5"])
@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps", "smtp"])
def test_login_at_a_host_that_proves_its_name(
    stage: Stage, authority: trustme.CA, scheme: str, mechanisms: str
) -> None:
    files = certificate(stage, authority)
    host = stage.host(mechanisms=mechanisms, implicit_tls=scheme == "smtps", **files, **LOGINS)
    stage.push(map(mail, range(50)))
    worker = worker_for(stage, f"{scheme}://{LOGIN}@localhost:{host.port}")
    delivers(stage, host, worker)
    assert "host_failed" not in worker.stderr


@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps", "smtp"])
def test_no_login_at_a_host_that_nobody_can_verify(
    stage: Stage, authority: trustme.CA, scheme: str
) -> None:
    files = certificate(stage, authority)
    host = stage.host(implicit_tls=scheme == "smtps", **files, **LOGINS)
    stage.push(map(mail, range(50)))
    worker = worker_for(stage, f"{scheme}://{LOGIN}@localhost:{host.port}", ca=False)
    refuses(stage, host, worker, "the certificate can't be verified")


def test_no_login_at_a_host_with_the_certificate_of_another(
    stage: Stage, authority: trustme.CA
) -> None:
    host = stage.host(**certificate(stage, authority, "mail.example.com"), **LOGINS)
    stage.push(map(mail, range(50)))
    worker = worker_for(stage, f"smtp+starttls://{LOGIN}@localhost:{host.port}")
    refuses(stage, host, worker, "the certificate can't be verified", "localhost")


def test_plain_smtp_is_encrypted_by_whom_nobody_can_verify(
    stage: Stage, authority: trustme.CA
) -> None:
    host = stage.host(**certificate(stage, authority), policy={"require_tls": True})
    stage.push(map(mail, range(50)))
    worker = worker_for(stage, f"smtp://localhost:{host.port}", ca=False)
    delivers(stage, host, worker)
    assert worker.stderr.count("tls_not_verified") == 1


@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
def test_verified_by_nobody_where_that_is_written_down(
    stage: Stage, authority: trustme.CA, scheme: str
) -> None:
    files = certificate(stage, authority, "mail.example.com")
    host = stage.host(implicit_tls=scheme == "smtps", **files, **LOGINS)
    stage.push(map(mail, range(50)))
    url = f"{scheme}://{LOGIN}@localhost:{host.port}"
    worker = worker_for(stage, url, ca=False, more="verify = false\n")
    delivers(stage, host, worker)
    assert worker.stderr.count("tls_not_verified") == 1


def test_a_login_in_clear_where_that_is_written_down(stage: Stage) -> None:
    policy = {"require_auth": True, "auth_in_clear": True}
    host = stage.host(logins={USER: PASSWORD}, policy=policy)
    stage.push(map(mail, range(50)))
    url = f"smtp://{LOGIN}@localhost:{host.port}"
    delivers(stage, host, worker_for(stage, url, ca=False, more="auth_in_clear = true\n"))


def test_a_failed_handshake_is_followed_by_a_new_connection_in_clear(stage: Stage) -> None:
    host = stage.host(policy={"starttls": True})
    stage.push(map(mail, range(50)))
    worker = worker_for(stage, f"smtp://localhost:{host.port}", ca=False)
    delivers(stage, host, worker)
    assert "tls_failed_going_clear" in worker.stderr
    assert "host_failed" not in worker.stderr


def test_never_in_clear_where_tls_is_required(stage: Stage) -> None:
    host = stage.host(policy={"starttls": True})
    stage.push(map(mail, range(50)))
    url = f"smtp://localhost:{host.port}"
    worker = worker_for(stage, url, ca=False, more='tls = "required"\n')
    refuses(stage, host, worker)
    assert "going_clear" not in worker.stderr


@pytest.mark.parametrize("login", ["", f"{LOGIN}@"])
def test_never_in_clear_where_starttls_is_not_offered(stage: Stage, login: str) -> None:
    host = stage.host()
    stage.push(map(mail, range(50)))
    url = f"smtp+starttls://{login}localhost:{host.port}"
    worker = worker_for(stage, url, password=PASSWORD if login else None, ca=False)
    refuses(stage, host, worker, "STARTTLS")


def test_a_wrong_password_pauses_the_relay_and_keeps_the_mail(
    stage: Stage, authority: trustme.CA
) -> None:
    host = stage.host(**certificate(stage, authority), **LOGINS)
    stage.push(map(mail, range(50)))
    url = f"smtp+starttls://{LOGIN}@localhost:{host.port}"
    worker = worker_for(stage, url, password="wrong-one")
    refuses(stage, host, worker, "535")
    assert "wrong-one" not in worker.stderr
    assert b"wrong-one" not in stage.dump()
    worker.kill()
    delivers(stage, host, worker_for(stage, url))


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_token_that_has_expired_is_renewed_in_its_file(
    stage: Stage, authority: trustme.CA, mechanism: str
) -> None:
    host = stage.host(
        mechanisms=mechanism, **certificate(stage, authority), **{**LOGINS, "tokens": TOKENS}
    )
    stage.push(map(mail, range(50)))
    file = stage.folder / "token"
    file.write_text("stale.QUJDREVGR0g=\n")
    url = f"smtp+starttls://{LOGIN}@localhost:{host.port}"
    worker = worker_for(stage, url, password=None, more=f'token_file = "{file}"\n')
    refuses(stage, host, worker, "535", "status invalid_token")
    assert "stale" not in worker.stderr
    file.write_text(f"{TOKENS[USER]}\n")
    delivers(stage, host, worker)
    for place in (worker.stderr, worker.stdout, stage.dump().decode("latin-1")):
        assert TOKENS[USER] not in place


def test_a_host_that_offers_no_login_we_know(stage: Stage, authority: trustme.CA) -> None:
    files = certificate(stage, authority)
    host = stage.host(mechanisms="GSSAPI", **files, **LOGINS)
    stage.push(map(mail, range(50)))
    worker = worker_for(stage, f"smtp+starttls://{LOGIN}@localhost:{host.port}")
    refuses(stage, host, worker, "GSSAPI")
