"""How long one letter takes, beside the standard library's composer.

    python bench/compose.py [--runs 5] [--run-s 0.2]

Each row composes the same letter by both, best of RUNS runs of at least RUN_S seconds. The standard
library is given the least it needs for the same message: EmailMessage, set_content, as_bytes with
the SMTP policy.
"""

import argparse
import os
import timeit
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP

import stand

from geomail.job import Address, Attachment, Email
from geomail.letter import compose

SENDER = Address("news@example.com", "Müller Nachrichten")
ANN = Address("ann@example.org")
JOERG = Address("joerg@example.org", "Jörg Müller")
LINE = "Dear customer, your order is on its way to you.\n"
ZEILE = "Schöne Grüße aus München, Ihr Paket ist unterwegs - bis bald!\n"
PDF = Attachment("rechnung.pdf", os.urandom(100_000), "application/pdf", None)
ID = "0123456789abcdef.17.3"


def main() -> None:
    """Print a line a letter."""
    args = _arguments()
    stand.introduce(**vars(args))
    stand.pin(0, stand.WORKERS_CORE)
    print(f"{'letter':<34}{'octets':>9}{'geomail':>12}{'email':>12}{'ratio':>8}")
    for name, email, eight_bit in letters():
        size = len(by_geomail(email, eight_bit))
        ours = microseconds(by_geomail, email, eight_bit, args)
        theirs = microseconds(by_email, email, eight_bit, args)
        print(f"{name:<34}{size:>9,}{ours:>9.1f} us{theirs:>9.1f} us{theirs / ours:>7.0f}x")


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--run-s", type=float, default=0.2)
    return parser.parse_args()


def letters() -> list[tuple[str, Email, bool]]:
    """Return what is composed: its name, the job, and whether the host takes 8 bits."""
    plain = mail(ANN, "Your order 4711", text=filled(LINE, 1024))
    half, greeting = filled(ZEILE, 512), "Grüße aus Köln"
    both = mail(JOERG, greeting, text=half, html=half)
    long = mail(ANN, "Your order 4711", text=filled(LINE, 10_240))
    attached = mail(JOERG, greeting, text=half, attachments=[PDF])
    return [
        ("1 KB text, ASCII", plain, True),
        ("1 KB text + html, UTF-8, names", both, True),
        ("the same, host without 8BITMIME", both, False),
        ("10 KB text, ASCII", long, True),
        ("10 KB text, UTF-8", mail(JOERG, greeting, text=filled(ZEILE, 10_240)), True),
        ("100 KB attachment", attached, True),
    ]


def mail(to: Address, subject: str, **changes: object) -> Email:
    """Return a mail to one recipient."""
    return Email(to=[to], subject=subject, recipients=[to.addr], **changes)  # type: ignore[arg-type]


def filled(line: str, size: int) -> str:
    """Return a text of at most `size` octets."""
    return line * (size // len(line.encode()))


def by_geomail(email: Email, eight_bit: bool) -> bytes:
    """Compose with geomail."""
    letter = compose(
        email, id=ID, first_seen_ms=1_795_168_800_123, sender=SENDER, eight_bit=eight_bit
    )
    return letter.content


def by_email(email: Email, eight_bit: bool) -> bytes:
    """Compose with the standard library."""
    message = EmailMessage(policy=SMTP.clone(cte_type="8bit" if eight_bit else "7bit"))
    message["From"] = f"{SENDER.name} <{SENDER.addr}>"
    message["To"] = f"{email.to[0].name} <{email.to[0].addr}>" if email.to[0].name else ANN.addr
    message["Subject"] = email.subject
    message["Date"] = "Fri, 20 Nov 2026 10:00:00 +0000"
    message["Message-ID"] = f"<{ID}@example.com>"
    message.set_content(email.text or "")
    if email.html is not None:
        message.add_alternative(email.html, subtype="html")
    for file in email.attachments:
        kind, _, subtype = file.type.partition("/")
        message.add_attachment(file.content, kind, subtype, filename=file.filename)
    return message.as_bytes()


def microseconds(
    write: Callable[[Email, bool], bytes], email: Email, eight_bit: bool, args: argparse.Namespace
) -> float:
    """Return the time of one call."""
    timer = timeit.Timer(lambda: write(email, eight_bit))
    once = timer.timeit(3) / 3
    number = max(3, int(args.run_s / once))
    return min(timer.repeat(args.runs, number)) / number * 1e6


if __name__ == "__main__":
    main()
