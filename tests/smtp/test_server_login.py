"""The server's half of AUTH: each mechanism, told right and wrong."""

import base64
import hashlib
import hmac

import pytest
from server_talk import greeted

from geomail.smtp.accounts import MECHANISMS, Accounts
from geomail.smtp.dialogue import LINE_LIMIT
from geomail.smtp.policy import Policy
from geomail.smtp.server import Server

ACCOUNTS = Accounts(passwords={"ann": "päss"}, nonce=lambda: "chance")
LOGIN = Policy(accounts=ACCOUNTS, require_auth=True)


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    "lines",
    [
        [b"AUTH PLAIN " + b64("\0ann\0päss")],
        [b"auth plain " + b64("ann\0ann\0päss")],
        [b"AUTH PLAIN", b64("\0ann\0päss")],
        [b"AUTH LOGIN", b64("ann"), b64("päss")],
        [b"AUTH LOGIN " + b64("ann"), b64("päss")],
    ],
)
def test_login(lines: list[bytes]) -> None:
    talk = greeted(LOGIN, is_encrypted=True)
    assert b"AUTH PLAIN LOGIN SCRAM-SHA-256 CRAM-MD5\r\n" in talk.said
    assert talk.codes(b"MAIL FROM:<>\r\nVRFY a\r\n") == [530, 530]
    answers = talk.codes(*(line + b"\r\n" for line in lines))
    assert answers == [334] * (len(lines) - 1) + [235]
    assert talk.server.login == "ann"
    assert talk.codes(b"AUTH PLAIN\r\nMAIL FROM:<> AUTH=<>\r\nAUTH PLAIN\r\n") == [503, 250, 503]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([b"AUTH PLAIN " + b64("\0ann\0wrong")], 535),
        ([b"AUTH PLAIN " + b64("bob\0ann\0päss")], 535),
        ([b"AUTH PLAIN " + b64("ann")], 535),
        ([b"AUTH PLAIN " + b64("\0ann\0")], 535),
        ([b"AUTH PLAIN ="], 535),
        ([b"AUTH PLAIN !"], 501),
        ([b"AUTH PLAIN", b"*"], 501),
        ([b"AUTH PLAIN", b"x" * (LINE_LIMIT + 1)], 500),
        ([b"AUTH LOGIN", b64("ann"), b"*"], 501),
        ([b"AUTH LOGIN", b64("ann"), b64("wrong")], 535),
        ([b"AUTH LOGIN", b64("ann"), b"/w=="], 501),
        ([b"AUTH OAUTHBEARER"], 504),
        ([b"AUTH"], 504),
    ],
)
def test_login_that_fails(lines: list[bytes], code: int) -> None:
    talk = greeted(LOGIN, is_encrypted=True)
    answers = talk.codes(*(line + b"\r\n" for line in lines))
    assert answers == [334] * (len(lines) - 1) + [code]
    assert talk.server.login is None
    assert talk.codes(b"MAIL FROM:<>\r\n") == [530]
    assert talk.codes(b"AUTH PLAIN " + b64("\0ann\0päss") + b"\r\n") == [235]


def test_no_login_in_clear() -> None:
    talk = greeted(LOGIN)
    assert b"AUTH" not in talk.said
    assert talk.codes(b"AUTH PLAIN\r\n") == [538]
    talk = greeted(Policy(accounts=ACCOUNTS, auth_in_clear=True))
    assert talk.codes(b"MAIL FROM:<>\r\n") == [250]


def scram(password: str = "pencil", *, user: str = "user", nonce: str = "fyko") -> list[bytes]:
    """Return what a client says that knows the server's nonce, salt and count beforehand."""
    salt = hashlib.sha256(b"salt" + user.encode()).digest()[:16]
    first = f"n={user},r={nonce}"
    asked = f"r={nonce}chance,s={base64.b64encode(salt).decode()},i=4096"
    final = f"c=biws,r={nonce}chance"
    message = f"{first},{asked},{final}".encode()
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
    return [
        *[f"n,,{first}".encode(), asked.encode()],
        *[f"{final},p={base64.b64encode(proof).decode()}".encode()],
        *[b"v=" + base64.b64encode(server), b""],
    ]


def spoken(mechanism: bytes, script: list[bytes], accounts: Accounts) -> Server:
    """Say the lines of the client (each second one), expect those of the server."""
    talk = greeted(Policy(accounts=accounts, require_auth=True), is_encrypted=True)
    lines = [base64.b64encode(line) for line in script]
    said = talk.send(b"AUTH " + mechanism + b" " + (lines[0] or b"=") + b"\r\n")
    for challenge, response in zip(lines[1::2], lines[2::2], strict=True):
        assert said == b"334 " + challenge + b"\r\n"
        said = talk.send(response + b"\r\n")
    talk.send(b"")
    assert said[:3] == (b"535" if talk.server.login is None else b"235")
    return talk.server


KNOWN = Accounts(
    passwords={"user": "pencil", "a,b=c": "pencil"},
    tokens={"user": "vF9dft4qmT", "a,b=c": "t"},
    nonce=lambda: "chance",
    salt=b"salt",
)


def test_scram() -> None:
    assert spoken(b"SCRAM-SHA-256", scram(), KNOWN).login == "user"


def changed(script: list[bytes], index: int, old: bytes, new: bytes) -> list[bytes]:
    assert old in script[index]
    script[index] = script[index].replace(old, new)
    return script[: index + 1]


@pytest.mark.parametrize(
    "script",
    [
        scram("wrong")[:3],
        scram(user="nobody")[:3],
        changed(scram(), 0, b"n,,", b"p=tls-unique,,"),
        changed(scram(), 0, b"n,,", b"n,a=else,"),
        changed(scram(), 0, b"n=user", b"m=x,n=user"),
        changed(scram(), 0, b"n=", b"x="),
        changed(scram(), 2, b"chance", b"change"),
        changed(scram(), 2, b"biws", b"eSws"),
        changed(scram(), 2, b",p=", b",q="),
        [b""],
    ],
)
def test_scram_that_proves_nothing(script: list[bytes]) -> None:
    assert spoken(b"SCRAM-SHA-256", script, KNOWN).login is None


def test_a_server_that_proves_itself_is_not_answered_with_more() -> None:
    talk = greeted(Policy(accounts=KNOWN), is_encrypted=True)
    first, _, final, _, _ = (base64.b64encode(line) for line in scram())
    lines = [b"AUTH SCRAM-SHA-256 " + first, final, b"*", b"MAIL FROM:<>"]
    assert talk.codes(*(line + b"\r\n" for line in lines)) == [334, 334, 501, 250]
    assert talk.server.login is None


def cram(password: str) -> list[bytes]:
    challenge = b"<chance@geomail>"
    return [challenge, b"user " + hmac.digest(password.encode(), challenge, "md5").hex().encode()]


def test_cram_md5() -> None:
    for password, code in (("pencil", 235), ("wrong", 535), ("", 535)):
        talk = greeted(Policy(accounts=KNOWN), is_encrypted=True)
        challenge, response = (base64.b64encode(line) for line in cram(password))
        assert talk.send(b"AUTH CRAM-MD5\r\n") == b"334 " + challenge + b"\r\n"
        assert talk.codes(response + b"\r\n") == [code]
    assert talk.codes(b"AUTH CRAM-MD5 " + response + b"\r\n") == [501]


NO_TOKEN = b'{"status":"invalid_token","schemes":"bearer"}'
BEARER = b"\1auth=Bearer vF9dft4qmT\1\1"


@pytest.mark.parametrize(
    ("mechanism", "response", "user"),
    [
        (b"OAUTHBEARER", b"n,a=user,\1host=x\1port=25" + BEARER, "user"),
        (b"OAUTHBEARER", b"n,a=a=2Cb=3Dc,\1auth=bearer t\1\1", "a,b=c"),
        (b"XOAUTH2", b"user=user" + BEARER, "user"),
        (b"OAUTHBEARER", b"n,," + BEARER, None),
        (b"OAUTHBEARER", b"n,a=else," + BEARER, None),
        (b"XOAUTH2", b"user=else" + BEARER, None),
        (b"XOAUTH2", b"user=user" + BEARER[:-1], None),
        (b"XOAUTH2", b"user=user\1auth=Basic vF9dft4qmT\1\1", None),
        (b"XOAUTH2", b"user=user\1auth=Bearer \1\1", None),
        (b"XOAUTH2", b"", None),
    ],
)
def test_bearer_tokens(mechanism: bytes, response: bytes, user: str | None) -> None:
    script = [response] if user else [response, NO_TOKEN, b"\1"]
    assert spoken(mechanism, script, KNOWN).login == user


def test_what_is_not_known_is_not_offered() -> None:
    def offered(policy: Policy) -> bytes:
        talk = greeted(policy, is_encrypted=True)
        for name in MECHANISMS:
            line = b"AUTH " + name.encode() + b"\r\n"
            is_offered = name.encode() in talk.said.split()
            assert (talk.codes(line)[0] == 334) == is_offered
            talk.send(*[b"*\r\n"] * is_offered)
        return talk.said.partition(b"AUTH ")[2].partition(b"\r\n")[0]

    assert offered(Policy(accounts=Accounts(passwords={}))) == b"PLAIN LOGIN"
    assert offered(Policy(accounts=Accounts(tokens={}))) == b"OAUTHBEARER XOAUTH2"
    assert offered(Policy(accounts=KNOWN, mechanisms="LOGIN X-OWN")) == b"LOGIN X-OWN"
    assert len(offered(Policy(accounts=KNOWN)).split()) == len(MECHANISMS)


def test_nothing_of_a_login_is_kept() -> None:
    talk = greeted(LOGIN, is_encrypted=True)
    talk.send(b"AUTH LOGIN\r\n" + b64("ann") + b"\r\n" + b64("päss") + b"\r\n")
    assert "päss" not in repr(vars(talk.server))
    assert "pencil" not in repr(KNOWN)
    assert "vF9dft4qmT" not in repr(Policy(accounts=KNOWN))
