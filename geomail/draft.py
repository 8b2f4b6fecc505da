"""A draft: the mail that was typed with `geomail send`, as a payload for the queue.

Text, HTML and attachments are files, or standard input, which is given for one of them at most. A
file is read no further than a payload may be large. What a worker would refuse is refused here,
before anything is pushed.
"""

import base64
import json
import mimetypes
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from geomail import job
from geomail.errors import ConfigError
from geomail.job.payload import MAX_BYTES


def payload_of(given: Mapping[str, Any], label: str) -> bytes:
    """Return the payload of the mail that was typed, under the id `label`.

    Raises ConfigError for a file that can't be used, and PayloadError for a mail that can't be.
    """
    sources = [given["--text"], given["--html"], *given["--attach"]]
    if sources.count("-") > 1:
        raise ConfigError("standard input can be read once: pass - to one option only")
    mail = {
        "id": label,
        "to": given["--to"],
        "from": given["--from"],
        "subject": given["--subject"] or "",
        "text": _text_of(given["--text"]),
        "html": _text_of(given["--html"]),
        "attachments": [_attachment(path) for path in given["--attach"]],
    }
    fields = {key: value for key, value in mail.items() if value}
    payload = json.dumps(fields, ensure_ascii=False).encode()
    job.decode(payload)
    return payload


def _text_of(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return _content(path).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text: pass it by --attach, or convert it") from None


def _attachment(path: str) -> dict[str, str]:
    name = "stdin" if path == "-" else Path(path).name
    return {
        "filename": name,
        "content": base64.b64encode(_content(path)).decode(),
        "type": mimetypes.guess_type(name)[0] or "application/octet-stream",
    }


def _content(path: str) -> bytes:
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # not more: /dev/zero has no end
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} is too large: a job has at most {MAX_BYTES:,} bytes")
    return content
