"""What goes wrong on command: the names of the faults, and what each does at MAIL and RCPT.

A fault is written `name` or `name+number`: in front of the @ of an address, or for all mails as an
option of the sink. What it does when the content has come is geomail.sink.conversation's; the list
for people is in geomail.sink.
"""

import re
from collections import Counter
from typing import NamedTuple

import gevent

from geomail.smtp.answers import Answer

_NAMES = "reply|greylist|slow|bdat|data|stall|drip|hangup|never|junk|twice|skip|rst"
_FAULT = re.compile(rf"({_NAMES})(?:\+([0-9.]+))?(?=@|$)")
_GREYLISTED = Answer(451, "4.7.1", "Greylisted, try again later")
AT_RCPT = frozenset(["reply", "greylist", "slow"])
NAMES = tuple(_NAMES.split("|"))


class Fault(NamedTuple):
    """Something that is to go wrong, and how much of it (0: as usual)."""

    name: str
    number: float


def read_fault(address: str) -> Fault | None:
    """Return what an address (or an option) asks for, None when it is just an address."""
    match = _FAULT.match(address)
    return Fault(match[1], _number(match[2])) if match else None


def refusal(fault: Fault, address: str, tries: Counter[str]) -> Answer | None:
    """Return what is answered at MAIL or RCPT, None for yes, after a while if `fault` is slow."""
    name, number = fault
    if name == "reply":
        return requested(number)
    if name == "slow":
        gevent.sleep(number or 1)
    if name == "greylist":
        tries[address] += 1
        return _GREYLISTED if tries[address] <= (number or 1) else None
    return None


def requested(number: float, usual: int = 550) -> Answer:
    """Return the reply of this code, of the `usual` one when that is no code for a refusal."""
    code = int(number) if 400 <= number < 600 else usual
    return Answer(code, f"{code // 100}.0.0", "As the address asks for")


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
