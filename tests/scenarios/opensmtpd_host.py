"""An OpenSMTPD of our own: it doesn't know PIPELINING, and hangs up on who tries it.

Its limits are the default ones: a connection may bring a hundred mails.
"""

import os
import re
from pathlib import Path

from scenarios.peer import Peer, users

_SETTINGS = """\
listen on 127.0.0.1 port {port} hostname mx.example.org
table refused {{ "^refused.*" }}
table everybody {{ "@" = "{user}" }}
action "keep" maildir "{folder}/mail" virtual <everybody>
match from any for rcpt-to regex <refused> reject
match from any for any action "keep"
"""
_USER = "geomail-mail"


class OpenSMTPD(Peer):
    """An OpenSMTPD that runs from `start` to `stop`."""

    name = "opensmtpd"
    fault = re.compile(
        r"failed-command|bad-input|reason=(?!quit)|limit|warn:|fatal|Fail|unexpected|error",
        re.IGNORECASE,
    )
    usual = re.compile(r'command="RCPT TO:<refused|Too many messages sent|purge_task')

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def start(self) -> None:
        """Write its files, start it, wait until it listens."""
        mounts, ids = users(self.folder, "opensmtpd", "opensmtpq", _USER)
        for name in ("mail", "run", "spool/smtpd", "lib/opensmtpd/empty"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "spool/smtpd").chmod(0o711)
        for path in (self.folder, self.folder / "mail"):
            os.chown(path, ids[_USER], ids[_USER])
        config = self.folder / "smtpd.conf"
        config.write_text(_SETTINGS.format(folder=self.folder, user=_USER, port=self.port))
        if Path("/etc/resolv.conf").exists():
            (self.folder / "resolv.conf").write_text("lookup file\n")
            mounts["/etc/resolv.conf"] = self.folder / "resolv.conf"  # it asks nobody's name server
        mounts |= {
            "/run": self.folder / "run",
            "/var/spool": self.folder / "spool",
            "/var/lib": self.folder / "lib",
            "/usr/libexec": Path(self._program).parents[1] / "libexec",
        }
        self.run([self.program(self._program), "-d", "-f", str(config)], mounts=mounts)
