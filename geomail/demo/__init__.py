"""The tour: ten thousand mails from a Redis list to an SMTP server, on any machine, in seconds.

    mails      what PHP producers LPUSH: JSON and PHP-serialized, three shapes
    catcher    the sink as a process of its own, which records what arrives and when
    processes  the catcher and a worker as children: started, measured, ended
    screen     what is shown, on a terminal or in plain lines
    interrupts signals, obeyed where nothing can be left behind
    figures    what arrived, compared with what was pushed
    tour       the order of events, and the figures

All of it lives in a temporary folder and on free loopback ports: a Redis, a catcher, a worker. It
never touches another Redis, reads no settings of the user's, and leaves neither process nor file.
"""

from geomail.demo.tour import run

__all__ = ["run"]
