"""The doors: jobs come in by TCP, HTTP or SMTP, and every door ends in the same push.

    clients ──► listening ──► reception ──► a door (tcp, http, smtp) ──► Gate ──► Redis

`gate` is what all doors share: one push for what many connections bring. `doors` says what a door
is and opens those that are configured. `listening` binds the sockets and knows no gevent, for the
parent of several workers binds them too. Nothing is imported here: what nobody configured costs
nothing.

Promised: what a client is told was taken is in Redis before. Not promised: that a client that goes
without an answer knows what became of its job.
"""
