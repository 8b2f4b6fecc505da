"""What the producers of the demo push: the bytes that PHP programs put on the list.

Half are PHP's serialize() of MixPHP's shape, a quarter its JSON, a quarter the JSON of the Swoole
task server. The JSON is as json_encode() writes it, with `\\u00fc` and `\\/`. Every recipient is
an address of its own, by which the mail is known again where it arrives.
"""

import json

DOMAIN = "demo.example"
SENDER = f"news@{DOMAIN}"

_PEOPLE = (
    "Ada Lovelace",
    "Jürgen Weiß",
    "Ольга Петрова",
    "Zoë Laïs Brontë",
    "李小龙",
    "Søren Ødegård",
    "Γιώργος Σεφέρης",
    "Łucja Źrałek",
)
_BODY = """\
Dear {name},

this is mail number {number}, and it has come a long way.

A program put it on a Redis list with LPUSH:
{source}.
From that moment on geomail answered for it: a worker
took it, wrote it down as taken, composed this letter
from what the list held, and handed it to an SMTP
server over a connection that many others had used
before. Only when the server had said 250 was it
crossed off in Redis. Had the worker been killed in
between, another one would have found it and sent it.

A line with nothing but a dot ends a mail in SMTP:
.
This one did not end there: such lines are doubled on
their way. Umlauts, accents and other scripts need no
care either:
{people}.

Nobody reads this mail but you. Nothing has left this
machine: the address behind the @ does not exist, and
what arrived was counted and forgotten, except for
the last one, which is shown at the end.

Kind regards
geomail
"""


def recipient(kind: str, number: int) -> str:
    """Return the address of mail `number` among those of its `kind`."""
    return f"{kind}+{number}@{DOMAIN}"


def payload(kind: str, number: int) -> bytes:
    """Return the bytes that a producer pushes for mail `number` of `kind`; odd numbers are PHP."""
    to, name = recipient(kind, number), _PEOPLE[number // 4 % len(_PEOPLE)]
    subject = f"Mail {number} for {name}"
    if number % 4 == 0:
        body = _body(name, number, "JSON, as a Swoole client makes it")
        mail = {"from_email": SENDER, "to_email": to, "title": subject, "content": body}
        return json_encode(mail)
    if number % 4 == 2:
        body = _body(name, number, "JSON, as json_encode() makes it")
        return json_encode({"to": {to: name}, "subject": subject, "body": body})
    body = _body(name, number, "what PHP's serialize() makes of an array")
    return serialize({"to": {to: name}, "subject": subject, "body": body})


def _body(name: str, number: int, source: str) -> str:
    people = ", ".join(_PEOPLE[number % 7 : number % 7 + 2])
    return _BODY.format(name=name, number=f"{number:,}", source=source, people=people)


def json_encode(value: object) -> bytes:
    """Write a value as PHP's json_encode() does."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode()


def serialize(value: object) -> bytes:
    """Write a string, or a map of strings and maps, as PHP's serialize() does."""
    if isinstance(value, str):
        content = value.encode()
        return b's:%d:"%b";' % (len(content), content)
    if isinstance(value, dict):
        items = b"".join(serialize(part) for pair in value.items() for part in pair)
        return b"a:%d:{%b}" % (len(value), items)
    raise TypeError(f"a string or a map expected, not {value!r}")
