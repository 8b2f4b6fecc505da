"""Programs that people have already, pointed at the SMTP door by their usual settings."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from smtp_doors import AUTHORITY, CERTIFICATE, Opened, opened

LETTER = (
    b"From: a@x.example\r\nTo: b@y.example\r\nSubject: one\r\n\r\n.dot\r\nGr\xc3\xbc\xc3\x9fe\r\n"
)
DJANGO = """
import sys
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
settings.configure(
    EMAIL_HOST="127.0.0.1", EMAIL_PORT=int(sys.argv[1]), EMAIL_HOST_USER="ann",
    EMAIL_HOST_PASSWORD="secret",
)
mails = [EmailMessage(f"Grüße {n}", "text", "A <a@x.example>", ["b@y.example"]) for n in range(3)]
mails[0].attach("a.bin", b"\\0\\1")
print(get_connection().send_messages(mails))
"""
PERL = """
use Net::SMTP;
my $smtp = Net::SMTP->new("127.0.0.1", Port => $ARGV[0], Hello => "me.example") or die;
$smtp->mail('a@x.example', Bits => 8) or die; $smtp->to('b@y.example', 'c@y.example') or die;
$smtp->data() or die; local $/; $smtp->datasend(<STDIN>) or die; $smtp->dataend() or die;
print $smtp->message(); $smtp->quit();
"""
# What PHPMailer says, in its order: EHLO, STARTTLS, EHLO, the first mechanism that it knows too.
PHP = r"""
$s = stream_socket_client("tcp://127.0.0.1:$argv[1]", $n, $e, 20,
    STREAM_CLIENT_CONNECT, stream_context_create(["ssl" => ["cafile" => $argv[2],
    "peer_name" => "localhost"]]));
function said($s, $line) {
    if ($line !== null) fwrite($s, "$line\r\n");
    do { $reply = fgets($s, 515); } while ($reply[3] == "-");
    return (int) $reply;
}
$codes = [said($s, null), said($s, "EHLO me.example"), said($s, "STARTTLS")];
stream_socket_enable_crypto($s, true, STREAM_CRYPTO_METHOD_TLS_CLIENT) or exit(1);
foreach (["EHLO me.example", "AUTH LOGIN", base64_encode("ann"), base64_encode("secret"),
    "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA"] as $line)
    $codes[] = said($s, $line);
foreach (explode("\r\n", stream_get_contents(STDIN)) as $line)
    fwrite($s, ($line[0] ?? "") == "." ? ".$line\r\n" : "$line\r\n");
$codes[] = said($s, ".");
$codes[] = said($s, "QUIT");
echo json_encode($codes);
"""

Run = Callable[..., str]


@pytest.fixture
def door(redis_url: str, tmp_path: Path) -> Iterator[Opened]:
    cert, logins = tmp_path / "door.pem", tmp_path / "logins"
    CERTIFICATE.private_key_and_cert_chain_pem.write_to_path(cert)
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    logins.write_text("ann:secret\n")
    logins.chmod(0o600)
    with opened(redis_url, door_cert=str(cert), door_logins=str(logins)) as running:
        yield running


def output(*command: object, given: bytes = b"") -> str:
    """Run a program that has to succeed, and return what it prints."""
    done = subprocess.run(
        [str(word) for word in command], input=given, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def is_ours(raw: bytes, rest: bytes = LETTER) -> bool:
    """Tell whether a mail is what was sent, behind our own field."""
    return raw.startswith(b"Received: from ") and raw.split(b"\r\n", 3)[3] == rest


def test_django(door: Opened) -> None:
    assert output(sys.executable, "-c", DJANGO, door.address[1]) == "3\n"
    jobs = door.jobs()
    assert [job["mail_from"] for job in jobs] == ["a@x.example"] * 3
    assert b"Subject: =?utf-8?b?R3LDvMOfZSAw?=" in jobs[0]["raw"]


def test_curl(door: Opened, tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    flags = ["-sS", "--ssl-reqd", "--cacert", tmp_path / "ca.pem", "--user", "ann:secret"]
    envelope = ["--mail-from", "a@x.example", "--mail-rcpt", "b@y.example", "--upload-file", "-"]
    url = f"smtp://localhost:{door.address[1]}/me.example"
    output(needs_program("curl"), *flags, *envelope, "-4", url, given=LETTER)
    [job] = door.jobs()
    assert is_ours(job["raw"])
    assert b"with ESMTPSA;" in job["raw"]


def test_php(door: Opened, tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    php = needs_program("php")
    codes = output(php, "-r", PHP, door.address[1], tmp_path / "ca.pem", given=LETTER)
    assert codes == "[220,250,220,250,334,334,235,250,250,354,250,221]"
    assert is_ours(door.jobs()[0]["raw"], LETTER + b"\r\n")


def test_perl(redis_url: str, needs_program: Callable[[str], str]) -> None:
    perl = needs_program("perl")
    with opened(redis_url) as door:
        said = output(perl, "-e", PERL, door.address[1], given=LETTER)
        [job] = door.jobs()
        assert said == f"2.0.0 Ok: queued as {job['id']}\n"
        assert job["rcpt_to"] == ["b@y.example", "c@y.example"]
        assert is_ours(job["raw"])


def test_many_at_a_time(redis_url: str, needs_program: Callable[[str], str]) -> None:
    source = needs_program("smtp-source")
    with opened(redis_url) as door:
        flags = ["-s", 20, "-m", 500, "-d", "-f", "a@x.example", "-t", "b@y.example"]
        output(source, *flags, f"127.0.0.1:{door.address[1]}")
        assert len(door.jobs()) == 500
