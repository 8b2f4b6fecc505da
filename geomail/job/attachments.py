"""Attachments and inline parts, and base64.

Content comes inside the payload, as base64 (RFC 4648, with padding; white space in it is allowed,
nothing else is). A path is refused: a queue that opens files of its own machine for whoever may
push is a hole. A missing type follows from the file name by the table here, the same on every
machine.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64

from geomail.errors import PayloadError
from geomail.job.fields import line, refused
from geomail.job.kinds import Attachment
from geomail.job.unknown import note_unknown

_KEYS = ("filename", "content", "type", "cid")
_PLACES = ("path", "file", "url", "href", "tmp_name")
_SPACE = b" \t\r\n"
_ATOM = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_TYPE = re.compile(rf'{_ATOM}/{_ATOM}(?: *; *{_ATOM}=(?:{_ATOM}|"[ !#-\[\]-~]*"))*')
_CID = re.compile(r"[!#-'*+\-./0-9=?A-Z^_`a-z{|}~@$%&]{1,200}")
_UNKNOWN_TYPE = "application/octet-stream"
_TYPES = {
    "7z": "application/x-7z-compressed",
    "aac": "audio/aac",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "bz2": "application/x-bzip2",
    "css": "text/css",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "eml": "message/rfc822",
    "epub": "application/epub+zip",
    "gif": "image/gif",
    "gz": "application/gzip",
    "heic": "image/heic",
    "htm": "text/html",
    "html": "text/html",
    "ico": "image/vnd.microsoft.icon",
    "ics": "text/calendar",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "m4a": "audio/mp4",
    "md": "text/markdown",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "ogg": "audio/ogg",
    "p7m": "application/pkcs7-mime",
    "p7s": "application/pkcs7-signature",
    "pdf": "application/pdf",
    "png": "image/png",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rar": "application/vnd.rar",
    "rtf": "application/rtf",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "vcf": "text/vcard",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "zip": "application/zip",
}


def attachments(value: object, key: str) -> list[Attachment]:
    """Read a list of attachments."""
    if type(value) is not list:
        raise refused(key, "a list of {filename, content, type, cid}", value)
    return [_attachment(entry, f"{key}[{index}]") for index, entry in enumerate(value)]


def base64(value: object, key: str) -> bytes:
    """Read base64, strictly but for white space."""
    if not isinstance(value, str):
        raise refused(key, "base64", value)
    try:
        return a2b_base64(value, strict_mode=True)  # without a copy of what may be megabytes
    except ValueError:
        pass  # white space, or an error that the next lines name
    try:
        encoded = value.encode("ascii").translate(None, _SPACE)
        return a2b_base64(encoded, strict_mode=True)
    except UnicodeEncodeError as error:
        found = f"{value[error.start]!r} at {error.start}"
    except Base64Error as error:
        found = str(error)
    raise PayloadError(f"{key}: base64 expected: {found}")


def _attachment(entry: object, where: str) -> Attachment:
    if type(entry) is not dict:
        raise refused(where, "a map of filename, content, type and cid", entry)
    for key in entry:
        if key in _PLACES and entry[key] is not None:
            raise PayloadError(
                f"{where}.{key}: files are not opened here: send the content, as base64"
            )
        if key not in _KEYS:
            note_unknown(f"attachments.{key}", [f"attachments.{known}" for known in _KEYS])
    if entry.get("content") is None:
        raise PayloadError(f"{where}.content: base64 expected, it is missing")
    filename = _optional(entry, "filename", where)
    return Attachment(
        filename,
        base64(entry["content"], f"{where}.content"),
        _matching(entry, "type", where, _TYPE) or type_of(filename),
        _matching(entry, "cid", where, _CID),
    )


def type_of(filename: str | None) -> str:
    """Return the media type that a file name's extension stands for."""
    extension = (filename or "").rpartition(".")[2].lower()
    return _TYPES.get(extension, _UNKNOWN_TYPE)


def _optional(entry: dict[str, object], key: str, where: str) -> str | None:
    value = entry.get(key)
    return None if value is None or value == "" else line(value, f"{where}.{key}")


def _matching(entry: dict[str, object], key: str, where: str, form: re.Pattern[str]) -> str | None:
    text = _optional(entry, key, where)
    if text is None:
        return None
    if not form.fullmatch(text) or text.lower().startswith("multipart/"):
        raise refused(f"{where}.{key}", "image/png" if key == "type" else "an id like logo@x", text)
    return text
