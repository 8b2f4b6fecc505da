"""Mailboxes in every form that producers write them.

    "a@x"   "Ann <a@x>"   '"Doe, Jane" <j@x>, bo@y'   {"email": "a@x", "name": "Ann"}
    {"a@x": "Ann", "b@y": null}   [any of these, …]   PHP's mixed arrays: ['a@x', 'b@y' => 'B'],
    which JSON writes as {"0": "a@x", "b@y": "B"}

An address is split at its last @. The local part is 1 to 64 octets of what RFC 5322 calls atext,
dots anywhere (`xxx.` and `a..b` exist and get mail), any Unicode, or a quoted string; the domain
is a name of at most 255 octets, Unicode left as it is, or an address literal. Control characters,
spaces, <, > and whatever else could end the address early in a header or a command are refused,
never taken away. Only spaces around an entry of a list mean nothing. Whether a domain exists is
not asked here.
"""

import re

from geomail.errors import PayloadError
from geomail.job.fields import line, refused, shown
from geomail.job.kinds import Address
from geomail.job.unknown import note_unknown

MAX_RECIPIENTS = 1000
_MAX_TEXT = 1_000_000

_ATEXT = r"\w!#$%&'*+/=?^`{|}~.\-"
_is_plain = re.compile(
    rf"[{_ATEXT}]{{1,64}}@(?:[A-Za-z0-9_-]{{1,63}}\.)*[A-Za-z0-9_-]{{1,63}}", re.ASCII
).fullmatch
_BEYOND_ASCII = r"\u00a1-\u1fff\u200c\u200d\u2010-\u2027\u2030-\u205e\u2070-\ud7ff\ue000-\U0010ffff"
_LOCAL = re.compile(
    rf'[{_ATEXT}{_BEYOND_ASCII}]+|"(?:[^"\\\x00-\x20\x7f-\xa0<>]|\\[^\x00-\x20\x7f-\xa0<>])*"'
)
_DOMAIN = re.compile(
    rf"(?:[A-Za-z0-9_{_BEYOND_ASCII}-]++\.)*[A-Za-z0-9_{_BEYOND_ASCII}-]+"
    r"|\[(?:\d{1,3}(?:\.\d{1,3}){3}|IPv6:[0-9A-Fa-f:.]{2,45})\]",
    re.ASCII,
)
_UNFIT = re.compile(
    r"[\x00-\x20\x7f-\xa0\u1680\u2000-\u200b\u2028-\u202f\u205f\u3000\ud800-\udfff<>]"
)
_ENTRY = re.compile(r'(?:[^",<]++|"(?:[^"\\]|\\.)*"|<[^>]*+>)*')
_NAMED = re.compile(r"(.*)<([^<>]*)>", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_PERSON_KEYS = frozenset(("email", "name"))


def mailboxes(value: object, key: str) -> list[Address]:
    """Read any number of mailboxes, in the order given."""
    if type(value) is str:
        return _in_text(value, key)
    found: list[Address] = []
    if type(value) is dict:
        _take_map(value, key, found)
    elif type(value) is list:
        for entry in value:
            if type(entry) is str:
                found += _in_text(entry, key)
            elif type(entry) is dict:
                _take_map(entry, key, found)
            else:
                raise refused(key, "an address in each entry", entry)
            _check_number(found, key)
    else:
        raise refused(key, "an address or a list of addresses", value)
    if len(found) > MAX_RECIPIENTS:
        raise _too_many(key)
    return found


def mailbox(value: object, key: str) -> Address:
    """Read exactly one mailbox."""
    found = mailboxes(value, key)
    if len(found) != 1:
        raise PayloadError(f"{key}: one address expected, not {len(found)}")
    return found[0]


def addr_specs(value: object, key: str) -> list[str]:
    """Read mailboxes of an envelope, where names mean nothing."""
    return [found.addr for found in mailboxes(value, key)]


def reverse_path(value: object, key: str) -> str:
    """Read one envelope sender; `<>` is the null sender, returned as ""."""
    if isinstance(value, str) and value.strip(" ") in ("", "<>"):
        return ""
    return mailbox(value, key).addr


def check_address(addr: str, key: str) -> str:
    """Return `addr`, or raise PayloadError with what is wrong about it."""
    if _is_plain(addr) and len(addr) < 256:
        return addr
    fault = _fault(addr)
    if fault:
        raise PayloadError(f"{key}: {shown(addr)} is not an address: {fault}")
    return addr


def unique(addrs: list[str]) -> list[str]:
    """Return the addresses with each mailbox once (domains compare without case), first wins."""
    if len(addrs) == 1:
        return addrs
    seen: dict[tuple[str, str], str] = {}
    for addr in addrs:
        local, _, domain = addr.rpartition("@")
        seen.setdefault((local, domain.lower()), addr)
    if len(seen) > MAX_RECIPIENTS:
        raise _too_many("to, cc and bcc together")
    return list(seen.values())


def _in_text(text: str, key: str) -> list[Address]:
    if _is_plain(text) and len(text) < 256:
        return [Address(text)]
    if len(text) > _MAX_TEXT:
        raise PayloadError(f"{key}: more than {_MAX_TEXT:,} characters of addresses")
    line(text, key)
    found: list[Address] = []
    pos = 0
    while pos <= len(text):
        entry = _ENTRY.match(text, pos)
        pos = entry.end() if entry else pos
        if text[pos : pos + 1] not in ("", ","):
            raise PayloadError(f"{key}: unclosed {text[pos]} in {shown(text)}")
        if entry and (bare := entry[0].strip(" ")):
            found.append(_entry(bare, key))
            _check_number(found, key)
        pos += 1
    return found


def _entry(text: str, key: str) -> Address:
    named = _NAMED.fullmatch(text)
    if not named:
        return Address(check_address(text, key))
    name = _QUOTED.sub(lambda quoted: _ESCAPED.sub(r"\1", quoted[1]), named[1].strip(" "))
    return Address(check_address(named[2], key), name)


def _take_map(value: dict[object, object], key: str, found: list[Address]) -> None:
    if "email" in value or "name" in value:
        found.append(_person(value, key))
        return
    for addr, name in value.items():
        if type(addr) is str and not addr.isdigit():
            # Of plain ones nobody else has to be asked: 0.4 us less a mail.
            if not (_is_plain(addr) and len(addr) < 256):
                check_address(addr, key)
            if type(name) is not str or not name.isprintable():
                name = _name(name, addr, key)
            found.append(Address(addr, name))
        elif type(name) is str:
            found += _in_text(name, key)
        elif type(name) is dict:
            found.append(_person(name, key))
        else:
            raise refused(f"{key}[{addr}]", "an address", name)


def _person(value: dict[object, object], key: str) -> Address:
    if "email" not in value:
        raise PayloadError(f"{key}: an entry with `email` and `name` expected, `email` is missing")
    if len(value) > 2 or not value.keys() <= _PERSON_KEYS:
        for extra in value.keys() - _PERSON_KEYS:
            note_unknown(f"{key}.{extra}", [f"{key}.{known}" for known in _PERSON_KEYS])
    addr = value["email"]
    if type(addr) is not str:
        raise refused(f"{key}.email", "an address", addr)
    return Address(check_address(addr, key), _name(value.get("name"), addr, key))


def _name(value: object, addr: str, key: str) -> str:
    return "" if value is None or value == [] else line(value, f"{key}: the name of {addr}")


def _check_number(found: list[Address], key: str) -> None:
    if len(found) > MAX_RECIPIENTS:
        raise _too_many(key)


def _too_many(key: str) -> PayloadError:
    return PayloadError(
        f"{key}: more than {MAX_RECIPIENTS:,} recipients: push several jobs, each with fewer"
    )


def _fault(addr: str) -> str | None:
    unfit = _UNFIT.search(addr)
    if unfit:
        return f"U+{ord(unfit[0]):04X} ({unfit[0]!r}) at {unfit.start()} can't be in one"
    local, at, domain = addr.rpartition("@")
    if not at:
        return "it has no @ (a name with a comma goes in quotes)"
    if not 1 <= len(local.encode()) <= 64:
        return "1 to 64 octets before the @ expected"
    if not 1 <= len(domain.encode()) <= 255:
        return "1 to 255 octets after the @ expected"
    if not _LOCAL.fullmatch(local):
        return "what stands before the last @ needs quotes"
    if not _DOMAIN.fullmatch(domain):
        return "what stands after the @ is no domain"
    if any(len(label) > 63 for label in domain.split(".")):
        return "a part of its domain is longer than 63 characters"
    return None
