"""What a server has announced decides what a letter may say; nothing else gets into a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.letter import Letter
from geomail.smtp import paths
from geomail.smtp.extensions import announced, envelope, is_safe_path, refusal
from geomail.smtp.reply import Reply


def known(*extensions: str) -> dict[str, str]:
    """Return what a reply to EHLO with these lines announces."""
    return announced(Reply(250, None, ("mx.example", *extensions)))


# ---- what the server announces


@pytest.mark.parametrize(
    ("extensions", "capabilities"),
    [
        ([], {}),
        (["SIZE"], {"SIZE": ""}),
        (["Size 1000", "pipelining"], {"SIZE": "1000", "PIPELINING": ""}),
        (["AUTH=PLAIN", "AUTH LOGIN"], {"AUTH": "PLAIN LOGIN"}),
        (["AUTH=LOGIN PLAIN"], {"AUTH": "LOGIN PLAIN"}),
        (["X-A=b c", "", "???", "ü"], {"X-A=B": "c", "": "", "???": "", "Ü": ""}),
        (["LIMITS MAILMAX=5 RCPTMAX=7"], {"LIMITS": "MAILMAX=5 RCPTMAX=7"}),
    ],
)
def test_what_is_announced_is_known(extensions: list[str], capabilities: dict[str, str]) -> None:
    assert known(*extensions) == capabilities


# ---- what is never written


def letter(
    *,
    mail_from: str = "a@a.example",
    recipient: str = "b@b.example",
    content: bytes = b"Subject: 1\r\n\r\nHello\r\n",
    eight_bit: bool = False,
    smtputf8: bool = False,
    dsn: tuple[str, ...] | None = None,
) -> Letter:
    """Make a letter that differs from a plain one in what is given."""
    return Letter(mail_from, ("c@c.example", recipient), content, eight_bit, smtputf8, dsn)


@pytest.mark.parametrize(
    ("extensions", "sent", "enhanced"),
    [
        (["SIZE 20"], letter(), "5.3.4"),
        (["SIZE 21"], letter(), None),
        (["SIZE 0"], letter(), None),
        (["SIZE"], letter(), None),
        (["SIZE about 20"], letter(), None),
        (["SIZE -1"], letter(), None),
        (["SIZE ²"], letter(), None),
        (["SIZE 20", "SIZE 20"], letter(), None),
        (["SIZE " + "9" * 4000], letter(), None),
        (["SIZE"], letter(eight_bit=True), "5.6.3"),
        (["8BITMIME"], letter(eight_bit=True), None),
        (["8BITMIME"], letter(recipient="ö@b.example", smtputf8=True), "5.6.7"),
        (["SMTPUTF8"], letter(recipient="ö@b.example", smtputf8=True), None),
        ([], letter(mail_from=""), None),
        ([], letter(recipient='"b c"@b.example'), None),
        ([], letter(recipient='"b\\"<c>"@b.example'), None),
        ([], letter(recipient="a..b@b.example"), None),
        ([], letter(recipient="xxx.@b.example"), None),
        ([], letter(recipient="b c@b.example"), "5.1.3"),
        ([], letter(recipient="<b@b.example>"), "5.1.3"),
        ([], letter(recipient="b@b.example>"), "5.1.3"),
        ([], letter(recipient="b@b.example\r\nRSET"), "5.1.3"),
        ([], letter(recipient='"b\r\nRSET"@b.example'), "5.1.3"),
        ([], letter(recipient='"b@b.example'), "5.1.3"),
        ([], letter(recipient='"b"@b.example> SIZE=1'), "5.1.3"),
        ([], letter(mail_from="a@a.example> BODY=8BITMIME"), "5.1.3"),
        ([], letter(recipient="b\ud800@b.example", smtputf8=False), "5.1.3"),
        (["SMTPUTF8"], letter(recipient='"\udc80"@b.example', smtputf8=True), "5.1.3"),
        (["SMTPUTF8"], letter(recipient="ö@b.example"), "5.6.7"),
        *[([], letter(recipient=f"b{chr(c)}@b.example"), "5.1.3") for c in (*range(33), 127)],
        *[([], letter(mail_from=f"b@{chr(c)}.example"), "5.1.3") for c in (*range(33), 127)],
        ([], Letter("a@a.example", (), b"", False, False), "5.1.3"),
    ],
)
def test_what_the_server_can_not_be_given(
    extensions: list[str], sent: Letter, enhanced: str | None
) -> None:
    found = refusal(sent, known(*extensions))
    assert (found and found.enhanced) == enhanced
    assert found is None or (found.is_permanent and found.code == 554)


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_no_safe_path_says_more_than_an_address(address: str) -> None:
    if is_safe_path(address):
        line = f"<{address}>".encode()
        assert not set(line) & {*range(32), 127}
        found = paths.read_rcpt(b"TO:" + line)
        assert found is None or found[0] in (None, address)
        assert found is None or found[1] == []


@pytest.mark.parametrize(
    ("extensions", "sent", "line"),
    [
        ([], letter(), b"MAIL FROM:<a@a.example>"),
        ([], letter(mail_from=""), b"MAIL FROM:<>"),
        (["SIZE 9999"], letter(content=b".\r\n" * 7), b"MAIL FROM:<a@a.example> SIZE=21"),
        (["8BITMIME", "SMTPUTF8"], letter(), b"MAIL FROM:<a@a.example>"),
        (["8BITMIME"], letter(eight_bit=True), b"MAIL FROM:<a@a.example> BODY=8BITMIME"),
        (
            ["SIZE", "8BITMIME", "SMTPUTF8"],
            letter(mail_from="ä@a.example", eight_bit=True, smtputf8=True),
            "MAIL FROM:<ä@a.example> SIZE=21 BODY=8BITMIME SMTPUTF8".encode(),
        ),
    ],
)
def test_mail_has_the_parameters_that_were_announced(
    extensions: list[str], sent: Letter, line: bytes
) -> None:
    mail, *_ = envelope(sent, known(*extensions)).encode().split(b"\r\n")
    assert mail == line


@pytest.mark.parametrize(
    ("dsn", "is_safe"),
    [
        (("", ""), True),
        (("RET=HDRS ENVID=x+2By", "NOTIFY=SUCCESS,FAILURE"), True),
        (("RET=FULL", ""), True),
        (("", "NOTIFY=NEVER"), True),
        (("ENVID=a b", ""), False),
        (("ENVID=", ""), False),
        (("RET=HDRS ", ""), False),
        (("RET=HDRS\r\nRSET", ""), False),
        (("ENVID=<a>", ""), False),
        (("ENVID=ä", ""), False),
        (("", "NOTIFY=NEVER> NOTIFY=SUCCESS"), False),
        (("", "NOTIFY=NEVER\n"), False),
        *[((f"ENVID=a{chr(c)}", ""), False) for c in (*range(33), 127)],
    ],
)
@pytest.mark.parametrize("extensions", [[], ["DSN"]])
def test_reports_are_asked_for_in_words_that_end_nothing(
    dsn: tuple[str, ...], is_safe: bool, extensions: list[str]
) -> None:
    found = refusal(letter(dsn=dsn), known(*extensions))
    assert (found is None) is is_safe
    assert found is None or found.enhanced == "5.5.4"


@pytest.mark.parametrize(
    ("extensions", "dsn", "mail", "rcpt"),
    [
        (["DSN"], None, "", ""),
        (["DSN"], ("", ""), "", ""),
        (["DSN"], ("RET=HDRS", "NOTIFY=NEVER"), " RET=HDRS", " NOTIFY=NEVER"),
        (["DSN"], ("RET=HDRS", ""), " RET=HDRS", ""),
        (["dsn"], ("", "NOTIFY=NEVER"), "", " NOTIFY=NEVER"),
        ([], ("RET=HDRS", "NOTIFY=NEVER"), "", ""),
        (["SIZE", "DSN"], ("RET=HDRS", ""), " SIZE=21 RET=HDRS", ""),
    ],
)
def test_reports_are_asked_for_where_they_are_announced(
    extensions: list[str], dsn: tuple[str, ...] | None, mail: str, rcpt: str
) -> None:
    assert envelope(letter(dsn=dsn), known(*extensions)) == (
        f"MAIL FROM:<a@a.example>{mail}\r\n"
        f"RCPT TO:<c@c.example>{rcpt}\r\nRCPT TO:<b@b.example>{rcpt}\r\n"
    )


def test_what_differs_for_each_recipient() -> None:
    asked = letter(dsn=("RET=FULL", "NOTIFY=NEVER", ""))
    first, second = asked.recipients
    assert envelope(asked, known("dsn")) == (
        f"MAIL FROM:<{asked.mail_from}> RET=FULL\r\n"
        f"RCPT TO:<{first}> NOTIFY=NEVER\r\nRCPT TO:<{second}>\r\n"
    )
    assert "NOTIFY" not in envelope(asked, known())
    assert refusal(letter(dsn=("", "", "NOTIFY=NEVER\r\nDATA")), known("dsn")) is not None
