"""One connection to a host, from the race for it to its close; no wait on it is without end.

What is said over it is the conversation's business (smtp), what that means is outcome's.
"""
