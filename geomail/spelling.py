"""What a mistyped name was meant to be: one measure of likeness for flags, settings and keys."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """Return the one of `known` that is most like `name`, or None when none is (0 to 1)."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, likeness)), None)


def hint(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean …?` for the end of an error line, or nothing."""
    names = sorted(known)
    begun = [one for one in names if one.startswith(name)]
    meant = begun[0] if len(begun) == 1 else nearest(name, names)
    return f": did you mean {meant}?" if meant else ""
