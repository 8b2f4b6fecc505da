"""What the conversation itself costs: CPU time and system calls a mail of 1 KB.

    python bench/conversation.py [--count 100000] [--runs 5] [--connections 20] [--traced 4000]

    words       smtp.client alone, no socket: what is written, and what the replies mean. The best
                of five runs of timeit, with the very replies that a host gives in steady state.
    wire        all that a connection costs: the same, the reads and writes, the waits, the kernel's
                part, the event loop. bench/driver.py drives CONNECTIONS sessions as a sender does
                and sends COUNT finished letters; counted is the CPU time of its process, user and
                system, from the moment in which all are connected.
    calls       system calls a mail, by strace (skipped where there is none): the driver sends
                TRACED and twice TRACED mails, and the difference is counted: start and end cancel
                out. strace makes everything slow, so rates say nothing here, and more replies may
                come in one read than without it.
    worker      the calls of a whole worker for TRACED mails, when it has delivered as many before
                and keeps its connections. Redis is in it, which it speaks to by sendto and
                recvfrom, and the journal, which gets one write a mail; the SMTP wire is read and
                written by read and write.

Not in any but the last: the queue, composing, settling. DATA goes to Postfix's smtp-sink, BDAT to
geomail's sink, for smtp-sink has no CHUNKING; the host is on the other core and not counted, but a
slow one makes a client wait, and each wait costs it a turn of its loop.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import timeit
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import stand
import sinks

from geomail.letter import Letter
from geomail.queue import Queue
from geomail.smtp.client import Client
from geomail.smtp.events import Finished, Policy

_DRIVER = Path(__file__).parent / "driver.py"
_MODES = ("data", "bdat")
_KINDS = {
    "send": ("write", "writev", "sendto", "sendmsg"),
    "recv": ("read", "readv", "recvfrom", "recvmsg"),
    "wait": ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "select"),
}
_OPENING = b"220 there\r\n", b"250-there\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME\r\n"
_ATTACH_S = 10.0


def main() -> None:
    """Print all parts."""
    args = _arguments()
    stand.introduce(**vars(args))
    _words()
    with stand.smtp_sink() as plain, sinks.near() as chunking:
        ports = {"data": plain, "bdat": chunking.port}
        _wire(ports, args)
        strace = shutil.which("strace")
        if strace is None:
            print("\ncalls   skipped: strace is not installed")
            return
        _calls(strace, ports, args)
        for mode in _MODES:
            _worker(strace, mode, ports[mode], args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--traced", type=int, default=4_000)
    return parser.parse_args()


# ---- the words


def _words() -> None:
    recipient = "demo+4711@example.com"
    letter = Letter(stand.SENDER, (recipient,), stand.message(1024), False, False)
    for mode, prepare in (("data", _data_turn), ("bdat", _bdat_turn)):
        turn = prepare(letter)
        timer = timeit.Timer(turn)
        number, _ = timer.autorange()
        best = min(timer.repeat(5, number)) / number
        print(f"words   {mode}  {best * 1e6:6.2f} µs a mail", flush=True)


def _data_turn(letter: Letter) -> Callable[[], None]:
    """Return a turn of the steady state: content, the next envelope, four replies."""
    client = _opened("off")
    client.begin(letter, None)
    _said(client, b"250 ok\r\n250 ok\r\n354 go\r\n")
    replies = b"250 2.0.0 Ok: queued as 4711\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n"

    def turn() -> None:
        client.content(client.unfinished[0])
        client.begin(letter, None)
        events = _said(client, replies)
        assert type(events[0]) is Finished

    return turn


def _bdat_turn(letter: Letter) -> Callable[[], None]:
    """Return a turn of the steady state: one message, four replies, seven still under way."""
    client = _opened("on")
    while client.may_begin:
        client.begin(letter, None)
    _said(client, b"250 ok\r\n" * 3)
    # The next has the RSET in front that goes with whatever is sent behind an open transaction.
    replies = b"250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued as 4711\r\n"

    def turn() -> None:
        client.begin(letter, None)
        events = _said(client, replies)
        assert type(events[0]) is Finished

    return turn


def _opened(chunking: str) -> Client:
    client = Client(Policy("bench.example.com", "never", chunking=chunking))
    for said in _OPENING:
        _said(client, said)
    return client


def _said(client: Client, replies: bytes) -> Sequence[object]:
    client.wrote(len(client.output()))
    return client.receive(replies)


# ---- the wire


def _wire(ports: dict[str, int], args: argparse.Namespace) -> None:
    print()
    seen: dict[str, list[dict[str, float]]] = {mode: [] for mode in _MODES}
    for number in range(args.runs):
        for mode in _MODES if number % 2 else reversed(_MODES):
            told = drive(ports[mode], mode, args.count, args.connections)
            each = {part: told[f"{part}_s"] / args.count * 1e6 for part in ("user", "system")}
            each["rate"] = args.count / told["seconds"]
            seen[mode].append(each)
    for mode, runs in seen.items():
        rate, user, system = (
            stand.median([run[part] for run in runs]) for part in ("rate", "user", "system")
        )
        both = stand.median([run["user"] + run["system"] for run in runs])
        parts = f"{both:6.2f} µs a mail: user {user:.2f}, system {system:.2f}"
        print(f"wire    {mode}  {parts}; {rate:,.0f} mails/s, median of {args.runs}", flush=True)


def drive(
    port: int, mode: str, count: int, connections: int, *, before: Sequence[str] = ()
) -> dict[str, float]:
    """Run driver.py on the worker's core, behind the words `before`; return what it has used."""
    numbers = [str(port), mode, str(connections), str(count)]
    done = subprocess.run(
        [*before, sys.executable, str(_DRIVER), *numbers],
        capture_output=True,
        text=True,
        preexec_fn=stand.on_core(stand.WORKERS_CORE),
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise SystemExit(f"driver.py failed: {said[-1] if said else done.returncode}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


# ---- the calls


def _calls(strace: str, ports: dict[str, int], args: argparse.Namespace) -> None:
    print()
    with tempfile.TemporaryDirectory(prefix="geomail-bench-") as folder:
        table = Path(folder) / "calls"
        before = [strace, "-c", "-f", "-o", str(table)]
        for mode in _MODES:
            calls = []
            for count in (args.traced, 2 * args.traced):
                drive(ports[mode], mode, count, args.connections, before=before)
                calls.append(_table(table))
            calls[1].subtract(calls[0])
            _print_calls(f"calls   {mode}", calls[1], args.traced)


def _table(path: Path) -> Counter[str]:
    """Read what strace -c has counted: percent, seconds, µs a call, calls, errors or not, name."""
    calls: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) in (5, 6) and words[3].isdigit() and words[-1] != "total":
            calls[words[-1]] += int(words[3])
    return calls


def _print_calls(what: str, calls: Counter[str], mails: int) -> None:
    kinds = [
        f"{kind} {sum(calls[name] for name in names) / mails:.2f}" for kind, names in _KINDS.items()
    ]
    each = [
        f"{name} {count / mails:.2f}" for name, count in calls.most_common() if count >= mails / 100
    ]
    print(f"{what}  {', '.join(kinds)} a mail   ({', '.join(each)})", flush=True)


def _worker(strace: str, mode: str, port: int, args: argparse.Namespace) -> None:
    chunking = "on" if mode == "bdat" else "off"
    config = f'[relay.default]\nurl = "smtp://127.0.0.1:{port}"\nchunking = "{chunking}"\n'
    with stand.fresh_queue() as (queue, url, folder):
        flags = ["--redis", url, "--concurrency", str(args.connections)]
        with stand.worker(folder, flags, config=config) as worker:
            _deliver(queue, args.traced, 0)  # its connections are kept from here on
            table = folder / "calls"
            command = [strace, "-c", "-f", "-o", str(table), "-p", str(worker.pid)]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
                _wait_until_traced(worker.pid)
                _deliver(queue, args.traced, args.traced)
                tracer.send_signal(signal.SIGINT)
            worker.drain()
        _print_calls(f"worker  {mode}", _table(table), args.traced)


def _deliver(queue: Queue, count: int, before: int) -> None:
    stand.push(queue, count, size=1024)
    while queue.counts().stats.get("delivered", 0) < before + count:
        time.sleep(0.05)


def _wait_until_traced(pid: int) -> None:
    deadline = time.monotonic() + _ATTACH_S
    while time.monotonic() < deadline:
        with suppress(OSError):
            if "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text():
                return
        time.sleep(0.01)
    raise SystemExit("strace can't trace the worker here: is ptrace forbidden?")


if __name__ == "__main__":
    main()
