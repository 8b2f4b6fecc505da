"""A Postfix of our own: strict, with STARTTLS, and CHUNKING.

It has its own configuration, queue, data and log folder, so one that the system runs is not
touched. Its limits are the default ones; only the second that it has a client wait for each error
is left out.
"""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping

from scenarios.peer import Peer

_MAIN = """\
compatibility_level = 3.6
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.org
mydestination =
alias_maps =
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:everybody/
virtual_mailbox_base = {folder}/mail
virtual_mailbox_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = encrypt
smtpd_tls_loglevel = 1
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access regexp:{folder}/etc/refused
mynetworks = 127.0.0.0/8
smtpd_forbid_bare_newline = {bare_newline}
smtpd_forbid_unauth_pipelining = yes
strict_rfc821_envelopes = yes
smtpd_error_sleep_time = 0
smtputf8_enable = yes
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Peer):
    """A Postfix that runs from `start` to `stop`."""

    name = "postfix"
    fault = re.compile(
        r"improper|error|reject|warning:|fatal|panic|bare|too many|lost connection|timeout"
        r"|disconnect from (?!.* quit=1 )"
    )
    usual = re.compile(r"warning: .*compat|RCPT from \S+ 550 5\.1\.1 <refused")

    def __init__(self, program: str, files: Mapping[str, str]) -> None:
        super().__init__()
        self._program = program
        self.files = files
        self._maildir = self.folder / "mail/everybody/new"

    def written(self) -> str:
        """Return its mail log."""
        log = self.folder / "mail.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def start(self) -> None:
        """Write its files, start it, wait until it listens."""
        self._prepare()
        self.run([self._program, "-c", str(self.folder / "etc"), "start-fg"])

    def stop(self) -> None:
        """End it and remove its folder."""
        command = [self._program, "-c", str(self.folder / "etc"), "stop"]
        subprocess.run(command, capture_output=True, check=False, timeout=30)
        super().stop()

    def _prepare(self) -> None:
        owner = pwd.getpwnam("postfix")
        for name in ("etc", "queue", "data", "mail", "tls"):
            (self.folder / name).mkdir()
        for name in ("data", "mail"):
            os.chown(self.folder / name, owner.pw_uid, owner.pw_gid)
        placed = {
            key: shutil.copy(path, self.folder / "tls" / key) for key, path in self.files.items()
        }
        settings = _MAIN.format(
            folder=self.folder,
            uid=owner.pw_uid,
            gid=owner.pw_gid,
            bare_newline=_bare_newline(),
            **placed,
        )
        (self.folder / "etc/main.cf").write_text(settings)
        (self.folder / "etc/refused").write_text("/^refused/ 550 5.1.1 nobody has this name here\n")
        (self.folder / "etc/master.cf").write_text(_MASTER.format(port=self.port))


def _bare_newline() -> str:
    """Return the strictest setting that this Postfix knows: `reject` came after `yes`."""
    known = subprocess.run(
        ["postconf", "-d", "mail_version"], capture_output=True, text=True, check=True
    )
    version = tuple(int(part) for part in known.stdout.split("=")[1].strip().split(".")[:2])
    return "reject" if version >= (3, 9) else "yes"
