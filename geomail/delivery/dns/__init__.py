"""What DNS says: which hosts take a domain's mail, asked once and kept for as long as it may be.

A failure to find out is a value like any answer, and never for good.
"""
