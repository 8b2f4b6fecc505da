"""Mails of all kinds to real mail servers: what arrives, what differs, what their logs say.

    python bench/real_peers.py [--peer postfix|exim|opensmtpd]... [--count 10000] [--concurrency 8]

Each server runs with a configuration and in a folder of its own, as the tests start it
(tests/scenarios): Postfix with its strict settings and STARTTLS, Exim which enforces
synchronization, OpenSMTPD which has no PIPELINING. Postfix and Exim once with DATA, once with
CHUNKING. COUNT jobs of twelve shapes (texts, HTML, attachments, inline pictures, dots, overlong
lines, finished messages, refused recipients, …) go to each; what arrives is compared with its job.

mails      copies that had to arrive, one a recipient that is not refused
lost       of these, not there five minutes after the last job was settled
twice      copies beyond the first
differ     copies whose headers, texts or attachments are not those of the job
dead       jobs with a refused recipient that are dead letters, as they have to be; then others
complaints lines of the server's log that find fault with how we speak
troubles   lines of the worker's log: warnings, errors, tries that were put off

It ends with 1 when anything but `mails` and `dead` is not 0. Wants root, and the packages postfix,
exim4-daemon-light and opensmtpd; those that exclude each other may be unpacked into
.ci/peers/<package>. What is missing is left out, and said.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import stand
import trustme

_HOME = Path(__file__).parents[1]
sys.path.insert(0, str(_HOME / "tests"))

from scenarios.assortment import compare, is_refused, job, recipients_of  # noqa: E402
from scenarios.exim_host import Exim  # noqa: E402
from scenarios.opensmtpd_host import OpenSMTPD  # noqa: E402
from scenarios.peer import Peer  # noqa: E402
from scenarios.postfix_host import Postfix  # noqa: E402
from scenarios.stage import Stage  # noqa: E402

from geomail.queue import embedded  # noqa: E402

_BURST_S = 3600.0
_ARRIVAL_S = 300.0
_PATIENT: dict[str, Any] = {
    "lease_s": 30,
    "beat_s": 5,
    "command_s": 60,
    "greeting_s": 60,
    "connect_s": 10,
}
_TROUBLE = re.compile(r".* (?:WARNING|ERROR|deferred) .*")


@dataclass(frozen=True, slots=True)
class Found:
    """What one run showed."""

    mails: int
    lost: int
    twice: int
    differ: list[str]
    dead: int
    wrongly_dead: int
    complaints: list[str]
    troubles: list[str]
    took_s: float

    @property
    def is_clean(self) -> bool:
        """Return whether all is as it has to be."""
        faults = (self.lost, self.twice, self.differ, self.wrongly_dead)
        return not any((*faults, self.complaints, self.troubles))


def main() -> None:
    """Run the peers that were asked for, or all."""
    args = _arguments()
    stand.introduce(**vars(args))
    is_clean = True
    for name in args.peer or _PEERS:
        program = _find(_PEERS[name][0])
        if program is None:
            print(f"{name:<10} left out: {_PEERS[name][0]} is not installed", flush=True)
            continue
        for chunking in _PEERS[name][2]:
            with tempfile.TemporaryDirectory(prefix="geomail-bench-") as folder:
                peer, relay = _PEERS[name][1](program, Path(folder))
                found = _trial(peer, relay | {"chunking": chunking}, Path(folder), args)
            _print(f"{name} chunking={chunking}", found)
            is_clean = is_clean and found.is_clean
    sys.exit(not is_clean)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--peer", action="append", choices=tuple(_PEERS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=8)
    return parser.parse_args()


def _find(program: str) -> str | None:
    folders = [*(_HOME / ".ci/peers").glob("*/usr/sbin"), "/usr/sbin", "/sbin"]
    return shutil.which(program, path=":".join(map(str, folders)))


# ---- the servers


def _postfix(program: str, folder: Path) -> tuple[Peer, dict[str, object]]:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    files = {name: str(folder / name) for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    issued.private_key_pem.write_to_path(files["key"])
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    peer = Postfix(program, files)
    return peer, {"url": f"smtp+starttls://localhost:{peer.port}", "ca_file": files["ca"]}


def _exim(program: str, _folder: Path) -> tuple[Peer, dict[str, object]]:
    peer = Exim(program)
    # Beyond its 1,000 it refuses MAIL and logs that: once an hour, to find out.
    return peer, {"url": f"smtp://127.0.0.1:{peer.port}", "messages_per_connection": 1000}


def _opensmtpd(program: str, _folder: Path) -> tuple[Peer, dict[str, object]]:
    peer = OpenSMTPD(program)
    return peer, {"url": f"smtp://127.0.0.1:{peer.port}"}


_Start = Callable[[str, Path], tuple[Peer, dict[str, object]]]
_PEERS: dict[str, tuple[str, _Start, tuple[str, ...]]] = {
    "postfix": ("postfix", _postfix, ("off", "on")),
    "exim": ("exim4", _exim, ("off", "on")),
    "opensmtpd": ("smtpd", _opensmtpd, ("off",)),
}


# ---- one run


def _trial(peer: Peer, relay: dict[str, object], folder: Path, args: argparse.Namespace) -> Found:
    wanted = {f"n{number}": job(number) for number in range(args.count)}
    stage = Stage(folder, embedded.start_private(folder / "redis"))
    try:
        peer.start()
        return _deliver(stage, peer, wanted, relay, args.concurrency)
    finally:
        with redirect_stdout(StringIO()):  # it shows what its processes said, for a test that fails
            stage.close()
        peer.stop()


def _deliver(
    stage: Stage,
    peer: Peer,
    wanted: dict[str, dict[str, Any]],
    relay: dict[str, object],
    concurrency: int,
) -> Found:
    stage.push(wanted.values())
    config = stage.folder / "geomail.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in relay.items()]
    config.write_text("\n".join(["[relay.default]", *lines]))
    flags = ("--burst", "--config", str(config), f"--concurrency={concurrency}")
    began = time.monotonic()
    worker = stage.worker(*flags, **_PATIENT)
    if worker.wait(_BURST_S) != 0:
        raise SystemExit(f"the worker failed: {worker.stderr[-2000:]}")
    took_s = time.monotonic() - began
    expected = sum(len(recipients_of(fields)) for fields in wanted.values())
    _wait_for(peer, expected)
    seen, differ = _compared(peer, wanted)
    dead, to_die = stage.dead(), sum(map(is_refused, wanted.values()))
    justly = sum("550" in letter.reason for letter in dead)
    return Found(
        mails=expected,
        lost=expected - len(seen),
        twice=seen.total() - len(seen),
        differ=differ,
        dead=justly,
        wrongly_dead=len(dead) - justly + abs(to_die - justly),
        complaints=peer.complaints(),
        troubles=_TROUBLE.findall(worker.stderr),
        took_s=took_s,
    )


def _wait_for(peer: Peer, expected: int) -> None:
    """Wait for what the server has taken and not yet put into its maildir."""
    deadline = time.monotonic() + _ARRIVAL_S
    while peer.count() < expected and time.monotonic() < deadline:
        time.sleep(0.5)


def _compared(
    peer: Peer, wanted: dict[str, dict[str, Any]]
) -> tuple[Counter[tuple[str, str]], list[str]]:
    seen: Counter[tuple[str, str]] = Counter()
    differ = []
    for content in peer.mails():
        try:
            seen[compare(content, wanted)] += 1
        except (AssertionError, KeyError) as error:
            differ.append(f"{error!r:.200}")
    return seen, differ


def _print(title: str, found: Found) -> None:
    print(
        f"{title:<23} {found.mails:,} mails in {found.took_s:,.0f} s: lost {found.lost},"
        f" twice {found.twice}, differ {len(found.differ)},"
        f" dead {found.dead:,} + {found.wrongly_dead},"
        f" complaints {len(found.complaints)}, troubles {len(found.troubles)}",
        flush=True,
    )
    for line in [*found.differ[:3], *found.complaints[:5], *found.troubles[:5]]:
        print(f"    {line}", flush=True)


if __name__ == "__main__":
    main()
