"""A local SMTP server for trying things out: accepts, refuses, stalls on command, keeps nothing.

What is to go wrong is written into an address, so one sink serves every test, and a producer can be
tried against trouble without any set-up. The local part says it, before an optional `+number`:

    recipient or sender     at RCPT or at MAIL
    reply+CODE@…            is answered CODE (421 closes the connection)
    greylist+N@…            is answered 451 the first N times (1), then accepted
    slow+S@…                is answered S seconds late (1)
    recipient               when the content has come (DATA: the final dot; BDAT: the last chunk)
    data+CODE@…             is answered CODE, and the mail is not taken
    bdat+CODE@…             as data, but only by BDAT (502)
    stall+S@…               is answered S seconds late (30)
    drip+S@…                is answered a byte each S seconds (1)
    hangup@…                the connection is cut without an answer
    never@…                 nothing is answered, the connection stays
    junk@…                  something is answered that is no reply
    twice@…                 is answered twice: from then on, all replies are out of step
    skip@…                  is not answered, what comes after it is: out of step as well
    rst+N@…                 the connection is reset after N octets of content or final dot (0)

CODE is 4xx or 5xx (550), seconds may have a fraction. All else is for the Policy (geomail.smtp) and
the options of Sink. A mail is *taken* when all of its content has come and nothing refuses it (rst:
when N octets are all of it). That is before it is answered, and on_mail has returned then: whatever
the client makes of our silence, a mail that it may have delivered is counted.

Not promised: deadlines (a client may take its time), storage, or being safe on a public address.
One greenlet a connection, one write for everything that one read has brought.
"""

from geomail.sink.serving import read_address, serve
from geomail.sink.sink import OnMail, Sink

__all__ = ["OnMail", "Sink", "read_address", "serve"]
