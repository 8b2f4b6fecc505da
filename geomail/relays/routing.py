"""Routing: which relay takes whose mail: the entries [[route]] in the file.

    recipient = "example.com"       the domain itself
    recipient = "*.example.com"     all that is under it, and not itself
    sender = ["shop.example", …]    the domain of From; of a finished message that of mail_from
    recipient = … and sender = …    both have to fit

The first entry that fits says the relay; where none does it is `default`. A payload that names a
relay itself is not asked about. Domains are compared in lower case and as A-labels. An entry, or a
domain in one, that can never be reached because an earlier entry takes all its mail is refused, and
so is a relay that is not there: nobody believes in a route that leads elsewhere.

Finding a relay costs a look into a few tables, however many entries there are, and is remembered
for the domains of late. Values only: nothing here reads a file or asks anybody.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from geomail import spelling
from geomail.errors import ConfigError
from geomail.values import a_labels

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_KEYS = ("recipient", "sender", "relay")
_EXPECTED = "a domain such as example.com or *.example.com, or a list of them"
_MOST_REMEMBERED = 10_000
_MOST_SHOWN, _MOST_NAMED = 50, 5


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[route]]: domains in lower case, as A-labels; none: any will do."""

    relay: str
    recipients: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [f"to {_some(self.recipients)}"] if self.recipients else []
        said += [f"from {_some(self.senders)}"] if self.senders else []
        return f"{' '.join(said)}: relay {self.relay}"


class Routing:
    """All rules, in order; false when there are none."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._senders = [frozenset(rule.senders) for rule in self.rules]
        self._by_recipient: dict[str, list[int]] = {}
        self._by_sender: dict[str, list[int]] = {}
        for number, rule in enumerate(self.rules):
            index = self._by_recipient if rule.recipients else self._by_sender
            for domain in dict.fromkeys(rule.recipients or rule.senders):
                index.setdefault(domain, []).append(number)
        self._remembered: dict[tuple[str, str], str | None] = {}

    def __len__(self) -> int:
        return len(self.rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Routing) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules)

    def __repr__(self) -> str:
        return f"Routing({list(self.rules)!r})"

    def relay_of(self, recipient: str, sender: str) -> str | None:
        """Return the relay for mail between two domains; None: no rule says anything.

        Both in lower case and as A-labels; "" where there is none.
        """
        remembered = self._remembered
        key = (recipient, sender)
        if key not in remembered:
            if len(remembered) >= _MOST_REMEMBERED:
                remembered.clear()
            number = self._first(_patterns(recipient), _patterns(sender), len(self.rules))
            remembered[key] = self.rules[number].relay if number is not None else None
        return remembered[key]

    def unreachable(self) -> tuple[int, int, str] | None:
        """Return the first rule that earlier ones leave nothing, or a domain in one.

        That is (its number, that of an earlier one which takes its mail, the domain), or None.
        """
        for number, rule in enumerate(self.rules):
            takers: dict[str, list[int | None]] = {}
            for recipient in rule.recipients or [""]:
                for sender in rule.senders or [""]:
                    taker = self._first(_patterns(recipient), _patterns(sender), number)
                    takers.setdefault(recipient, []).append(taker)
                    takers.setdefault(f"from {sender}", []).append(taker)
            for domain, by in takers.items():
                if by[0] is not None and None not in by and domain not in ("", "from "):
                    return number, by[0], domain.removeprefix("from ")
        return None

    def _first(self, recipients: Sequence[str], senders: Sequence[str], before: int) -> int | None:
        """Return the first rule before the number `before` that fits, or None."""
        best = before
        for pattern in recipients:
            best = min(best, self._fitting(self._by_recipient.get(pattern, ()), senders, best))
        for pattern in senders:
            best = min([best, *self._by_sender.get(pattern, ())[:1]])
        return best if best < before else None

    def _fitting(self, numbers: Iterable[int], senders: Collection[str], before: int) -> int:
        for number in numbers:
            if number >= before:
                break
            if not self._senders[number] or not self._senders[number].isdisjoint(senders):
                return number
        return before


def routes_shown(routing: Routing, relays: Collection[str]) -> list[str]:
    """Return lines for a person: each entry in order, then where all other mail goes."""
    rules = [f"{number}. {rule}" for number, rule in enumerate(routing.rules[:_MOST_SHOWN], 1)]
    if len(routing) > _MOST_SHOWN:
        rules.append(f"… and {len(routing) - _MOST_SHOWN} more")
    is_there = "default" in relays
    rest = "relay default" if is_there else "dead, for no relay is named default"
    return [*rules, f"all other mail: {rest}"]


def read_routing(tables: object, *, relays: Collection[str], place: str) -> Routing:
    """Return what the file has under `route`. Raises ConfigError: one line with entry and key."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"route in {place} must be tables: [[route]] recipient = … relay = …")
    rules = []
    for number, table in enumerate(tables, 1):
        where = f"[[route]] {number} in {place}"
        for key in table:
            if key not in _KEYS:
                raise ConfigError(f"unknown key {key!r} in {where}{spelling.hint(key, _KEYS)}")
        rules.append(_rule(table, relays, where))
    routing = Routing(rules)
    if found := routing.unreachable():
        number, taker, domain = found
        raise ConfigError(
            f"{domain!r} of [[route]] {number + 1} in {place} never fits: [[route]] {taker + 1}"
            f" has all its mail before ({rules[taker].relay}); leave it out, or put it first"
        )
    return routing


def _some(domains: Sequence[str]) -> str:
    more = f" and {len(domains) - _MOST_NAMED} more" if len(domains) > _MOST_NAMED else ""
    return ", ".join(domains[:_MOST_NAMED]) + more


def _rule(table: dict[str, object], relays: Collection[str], where: str) -> Rule:
    relay = table.get("relay")
    if not isinstance(relay, str) or not relay:
        said = "" if relay is None else f", not {relay!r}"
        raise ConfigError(f"relay of {where} must be the name of a relay{said}")
    if relay not in relays:
        known = ", ".join(sorted(relays)) or "none"
        hint = spelling.hint(relay, relays) or f"; known: {known}"
        raise ConfigError(f"relay of {where}: no relay is named {relay!r}{hint}")
    recipients, senders = (_domains(table, key, where) for key in ("recipient", "sender"))
    if not recipients and not senders:
        raise ConfigError(
            f"{where} would take all mail: name a recipient or a sender"
            " (mail that no entry takes goes to the relay default)"
        )
    return Rule(relay, recipients, senders)


def _domains(table: dict[str, object], key: str, where: str) -> tuple[str, ...]:
    if key not in table:
        return ()
    written = table[key]
    texts = [written] if isinstance(written, str) else written
    if not isinstance(texts, list) or not texts:
        raise ConfigError(f"{key} of {where} must be {_EXPECTED}, not {written!r}")
    found: dict[str, object] = {}
    for text in texts:
        domain = _domain(text)
        if domain is None:
            raise ConfigError(f"{key} of {where} must be {_EXPECTED}, not {text!r}")
        if domain in found:
            raise ConfigError(f"{key} of {where}: {text!r} stands twice")
        found[domain] = text
    return tuple(found)


def _domain(text: object) -> str | None:
    """Return a pattern in lower case and as A-labels, or None when it is none."""
    if not isinstance(text, str):
        return None
    star, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    name = name.removesuffix(".")
    name = a_labels(name)
    return star + name if _DOMAIN.fullmatch(name) else None


def _patterns(domain: str) -> list[str]:
    """Return what fits a domain, or all of a pattern: itself, and *.D for each D it is under."""
    if not domain:
        return []
    labels = domain.removeprefix("*.").split(".")
    return [domain, *("*." + ".".join(labels[i:]) for i in range(1, len(labels)))]
