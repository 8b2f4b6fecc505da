"""How fast and how many: what owners allow themselves, and what hosts say is too much.

A lane without either has None in their place, and pays nothing.
"""
