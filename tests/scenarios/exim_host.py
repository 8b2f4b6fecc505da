"""An Exim 4 of our own: it enforces synchronization, and announces PIPELINING and CHUNKING.

Its limits of what a client may do are the default ones, above all `smtp_accept_max_nonmail`: with
the eleventh command of a connection that serves no mail (a second RSET after one mail is such a
one) it hangs up.
"""

import os
import re

from scenarios.peer import Peer, users

_SETTINGS = """\
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
pid_file_path = {folder}/exim.pid
keep_environment =
primary_hostname = mx.example.org
exim_user = {user}
exim_group = {user}
never_users =
deliver_drop_privilege
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
host_lookup =
helo_lookup_domains =
rfc1413_hosts =
tls_advertise_hosts =
smtp_enforce_sync
chunking_advertise_hosts = *
pipelining_connect_advertise_hosts =
smtputf8_advertise_hosts = *
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
log_selector = +pipelining +smtp_connection +smtp_protocol_error +smtp_syntax_error \\
    +smtp_incomplete_transaction +unknown_in_list
acl_smtp_rcpt = recipient
acl_smtp_data = accept
begin acl
recipient:
    deny local_parts = ^refused
        message = nobody has this name here
    accept
begin routers
everybody:
    driver = accept
    transport = maildir
begin transports
maildir:
    driver = appendfile
    directory = {folder}/mail
    maildir_format
    return_path_add
    headers_add = Delivered-To: $local_part@$domain
"""
_USER = "Debian-exim"


class Exim(Peer):
    """An Exim that runs from `start` to `stop`."""

    name = "exim"
    fault = re.compile(
        r"error|synchroni[sz]ation|too many|malformed|NUL|bare|lost|dropp|closed|incomplete"
        r"|unexpected|time-?out|warning|panic|rejected|Frozen",
        re.IGNORECASE,
    )
    usual = re.compile(
        r"""rejected RCPT <refused|incomplete transaction \((RSET|QUIT)\)| closed by QUIT"""
        r"""| [<=]= | => """
        # How a host proves that it swallows a chunk that it refuses (RFC 3030).
        r"""|error in "BDAT 7 LAST" .* valid RCPT command must precede BDAT"""
    )

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def written(self) -> str:
        """Return its main log, and its panic log when there is one."""
        files = [self.folder / "log" / name for name in ("main", "panic")]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def start(self) -> None:
        """Write its files, start it, wait until it listens."""
        mounts, ids = users(self.folder, _USER)
        for name in ("spool", "log", "mail"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, ids[_USER], ids[_USER])
        program = self.program(self._program)
        config = self.folder / "exim.conf"
        config.write_text(
            _SETTINGS.format(program=program, folder=self.folder, user=_USER, port=self.port)
        )
        self.run([program, "-C", str(config), "-bdf"], mounts=mounts)

    def taken(self, signs: str) -> int:
        """Return how many mails it took with `signs` in its log: L for PIPELINING, K for BDAT."""
        return len(re.findall(f" <= .* P=esmtp {signs} S=", self.log))
