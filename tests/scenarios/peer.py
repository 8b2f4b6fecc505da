"""A real mail server of somebody else's: in a folder of its own, on a free port, into one maildir.

What lies where such a server was compiled to look for it (users, spool, socket) is laid there in a
mount namespace of its own: the machine's own files stay as they are, and one that the system runs
notices nothing. That wants root. These servers drop root, and want to reach their folders: they
can't be below pytest's own.
"""

import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from scenarios.stage import free_port, until


class Peer:
    """A mail server that runs from `start` to `stop`, and refuses names such as `refused-1`."""

    name: ClassVar[str]
    fault: ClassVar[re.Pattern[str]]
    """What its log says when it finds fault with how we speak, and more: what is `usual`."""
    usual: ClassVar[re.Pattern[str]]
    """What it logs of every good conversation, and of recipients that it doesn't have."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"geomail-{self.name}-"))
        self.folder.chmod(0o755)
        self._maildir = self.folder / "mail/new"
        self._said = self.folder / "out"
        self._known = 0  # how much of the log is of before
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Write its files, start it, wait until it listens."""
        raise NotImplementedError

    @property
    def log(self) -> str:
        """Return what it has logged since `forget`."""
        return self.written()[self._known :]

    def written(self) -> str:
        """Return its whole log: what it says, or the file that it writes."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    def forget(self) -> None:
        """Forget what arrived and what was logged until now."""
        for path in self._arrived():
            path.unlink()
        self._known = len(self.written())

    def complaints(self) -> list[str]:
        """Return the lines of its log that find fault with how we speak."""
        lines = [line for line in self.log.splitlines() if self.fault.search(line)]
        return [line for line in lines if not self.usual.search(line)]

    def mails(self) -> list[bytes]:
        """Return what lies in the maildir."""
        return [path.read_bytes() for path in self._arrived()]

    def count(self) -> int:
        """Return how many mails lie in the maildir."""
        return len(self._arrived())

    def run(self, command: Sequence[str], *, mounts: Mapping[str, Path] | None = None) -> None:
        """Start `command` and wait until it listens.

        It sees `mounts` in place of what the machine has there.
        """
        command = within(mounts or {}, command)
        with self._said.open("wb") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, start_new_session=True
            )
        process, listens = self._process, f":{self.port:04X} 00000000:0000 0A "
        until(lambda: listens in Path("/proc/net/tcp").read_text() or process.poll() is not None)
        assert process.poll() is None, f"{self._said.read_text(errors='replace')}{self.log}"

    def is_told_off(self) -> bool:
        """Speak before the greeting, and return whether the log comes to find fault with it."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as rude:
            rude.sendall(b"EHLO client.example.org\r\nMAIL FROM:<a@example.com>\r\n")
            while rude.recv(1000):
                pass
        until(self.complaints, self.log)
        return True

    def stop(self) -> None:
        """End it, with what it has started, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(10)
        until(self._is_swept, f"what writes into {self.folder} ends")

    def _is_swept(self) -> bool:
        shutil.rmtree(self.folder, ignore_errors=True)
        return not self.folder.exists()

    def program(self, path: str) -> str:
        """Return a copy of a program that users without rights can reach, and without its own."""
        (self.folder / "sbin").mkdir(exist_ok=True)
        copy = shutil.copyfile(path, self.folder / "sbin" / Path(path).name)
        copy.chmod(0o755)
        return str(copy)

    def _arrived(self) -> list[Path]:
        return (
            [Path(entry.path) for entry in os.scandir(self._maildir)]
            if self._maildir.exists()
            else []
        )


def within(mounts: Mapping[str, Path], command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` where each path shows what `mounts` says."""
    if not mounts:
        return list(command)
    laid = [shlex.join(("mount", "--bind", str(own), path)) for path, own in mounts.items()]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*laid, f"exec {shlex.join(command)}"])]


def users(folder: Path, *names: str) -> tuple[dict[str, Path], dict[str, int]]:
    """Return mounts that show users `names` beside the machine's, and the id that each has."""
    taken = {user.pw_uid for user in pwd.getpwall()}
    free = [number for number in range(61_000, 61_500) if number not in taken]
    ids = dict(zip(names, free, strict=False))
    passwd = [f"{name}:x:{number}:{number}::{folder}:/bin/sh\n" for name, number in ids.items()]
    group = [f"{name}:x:{number}:\n" for name, number in ids.items()]
    mounts = {}
    for path, lines in (("/etc/passwd", passwd), ("/etc/group", group)):
        own = folder / Path(path).name
        own.write_text(Path(path).read_text() + "".join(lines))
        mounts[path] = own
    return mounts, ids
