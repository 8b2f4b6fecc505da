"""A file that gets a line for each mail: `<unix time> <Message-ID> <first recipient>`.

Lines are written in blocks, after 1,000 of them or 0.2 s. What a process that is killed had not
written by then is lost, and so is what a full disk doesn't take: that is logged.
"""

import os
import re
import time

import gevent

from geomail import log
from geomail.errors import ConfigError
from geomail.smtp.server import Mail

_MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


class Record:
    """The lines that aren't written yet, and the file. Raises ConfigError if it can't be opened."""

    def __init__(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"can't record to {path}: {error.strerror}") from None
        self._path = path
        self._lines: list[str] = []

    def add(self, mail: Mail) -> None:
        """Note one mail with the time of now."""
        if not self._lines:
            gevent.spawn_later(0.2, self._flush)
        match = _MESSAGE_ID.search(mail.content)
        message_id = match[1].decode(errors="backslashreplace") if match else "-"
        self._lines.append(f"{time.time():.6f} {message_id} {mail.recipients[0]}\n")
        if len(self._lines) >= 1000:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        os.close(self._file)

    def _flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            block = "".join(lines).encode()
            try:
                is_whole = os.write(self._file, block) == len(block)
                why = None if is_whole else "No space left on device"
            except OSError as error:
                why = error.strerror
            if why:
                log.error("record_lost", lines=len(lines), path=self._path, why=why)
