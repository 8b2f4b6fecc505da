"""SASLprep (RFC 4013): names and passwords in the one spelling that both sides hash.

A profile of stringprep (RFC 3454, Unicode 3.2): what means nothing is left out, other spaces become
spaces, letters take their common form (NFKC). Text with control characters or private ones, or that
mixes directions of writing, has no such spelling and is refused; the error repeats nothing of it.
Code points that Unicode 3.2 did not know stay as they are, as for a query (RFC 5802 section 5.1).
"""

import stringprep
from unicodedata import ucd_3_2_0

_PROHIBITED = (  # RFC 4013 section 2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepared(text: str) -> str:
    """Return `text` as SASLprep spells it. Raises ValueError when it can't be, or is empty."""
    if text.isascii() and text.isprintable() and text:
        return text
    kept = (char for char in text if not stringprep.in_table_b1(char))
    spaced = "".join(" " if stringprep.in_table_c12(char) else char for char in kept)
    normal = ucd_3_2_0.normalize("NFKC", spaced)
    if not normal:
        raise ValueError("is empty")
    if any(is_in(char) for char in normal for is_in in _PROHIBITED):
        raise ValueError("holds a character that SASLprep (RFC 4013) forbids")
    if not _has_one_direction(normal):
        raise ValueError("mixes directions of writing, which SASLprep (RFC 4013) forbids")
    return normal


def _has_one_direction(text: str) -> bool:
    """RFC 3454 section 6: right-to-left stands alone, and at both ends."""
    from_right = [stringprep.in_table_d1(char) for char in text]
    if not any(from_right):
        return True
    return from_right[0] and from_right[-1] and not any(map(stringprep.in_table_d2, text))
