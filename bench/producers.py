"""How soon a mail arrives that a program sends, by each of the ways in.

    python bench/producers.py [--count 200] [--pause 0.02] [--only NAME]... [--apart]

A worker with nothing to do waits for its list, its doors are open; a sink runs inside this script.
Each producer is a program of its own, in PHP or plain Python, that sends one mail when it is told
to: COUNT of them, each PAUSE seconds after the one before had arrived. Timed is from the moment
before it calls (for the TCP door: before it connects) to the moment in which the sink has the whole
mail, by the clock that all processes of a machine share. The first three mails make connections,
and are not counted. With --apart the doors are those of another process, `geomail listen`. What
can't be had (phpredis) is skipped, and said.
"""

import ground  # noqa: F401, I001 - says what is missing
import geomail.__main__  # noqa: F401 - patches, before all else

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import stand
from gevent.event import AsyncResult

from geomail.sink import Sink

_WARM = 3
_PATIENCE_S = 10.0
_PHP = """
$redis = new Redis();
$redis->connect('127.0.0.1', (int) $argv[1]);
while (fgets(STDIN) !== false) {
    $mail = ['to' => ['ann@example.org' => 'Ann'], 'subject' => 'Hello', 'body' => 'It works.'];
    printf("%.6f\\n", microtime(true));
    $redis->lPush('queue:email', serialize($mail));
}
"""
_PYTHON = """
import http.client, json, smtplib, socket, sys, time
port = int(sys.argv[1])
mail = {"from_email": "a@example.com", "to_email": "b@example.org", "title": "t", "content": "c"}
document = json.dumps(mail).encode()
SET_UP
for line in sys.stdin:
    print(f"{time.time():.6f}", flush=True)
    SEND
"""
_REDIS = ("import redis; client = redis.Redis(port=port)", "client.lpush('queue:email', document)")
_CLIENT = (
    "import geomail; client = geomail.Client(f'redis://127.0.0.1:{port}')",
    "client.send(to='b@example.org', from_='a@example.com', subject='t', text='c')",
)
_TCP = ("", "s = socket.create_connection(('127.0.0.1', port)); s.sendall(document); s.close()")
_HTTP = (
    "http = http.client.HTTPConnection('127.0.0.1', port, timeout=10)",
    (
        "http.request('POST', '/v1/messages', document, {'Content-Type': 'application/json'});"
        " http.getresponse().read()"
    ),
)
_SMTP = (
    "smtp = smtplib.SMTP('127.0.0.1', port, timeout=10)",
    "smtp.sendmail('a@example.com', ['b@example.org'], 'Subject: t\\n\\nc')",
)
_WAYS = {
    "phpredis": ("redis", ("php", "-r", _PHP)),
    "redis-py": ("redis", _REDIS),
    "geomail.Client": ("redis", _CLIENT),
    "TCP door": ("tcp", _TCP),
    "HTTP door": ("http", _HTTP),
    "SMTP door": ("smtp", _SMTP),
}


def main() -> None:
    """Let each send, and print how long it took."""
    args = _arguments()
    stand.introduce(**vars(args))
    stand.pin(0, stand.OTHERS_CORE)
    arrived = _Arrivals()
    with ExitStack() as stack:
        queue, url, folder = stack.enter_context(stand.fresh_queue())
        sink = stack.enter_context(Sink(on_mail=arrived.note))
        ports = {door: stand.free_port() for door in ("tcp", "http", "smtp")}
        doors = [word for door in ports for word in (f"--{door}", f"127.0.0.1:{ports[door]}")]
        flags = ["--relay", f"smtp://127.0.0.1:{sink.address[1]}", "--redis", url]
        stack.enter_context(stand.worker(folder, flags + ([] if args.apart else doors)))
        if args.apart:
            stack.enter_context(_listen(["--redis", url, *doors]))
        while not queue.counts().workers:
            time.sleep(0.01)
        ports["redis"] = int(url.rpartition(":")[2].partition("/")[0])
        for name in args.only or _WAYS:
            place, made_of = _WAYS[name]
            _show(name, _command(made_of), ports[place], arrived, args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--only", action="append", default=[], choices=[*_WAYS], metavar="NAME")
    parser.add_argument("--apart", action="store_true")
    return parser.parse_args()


class _Arrivals:
    """Tells when the next mail has arrived."""

    def __init__(self) -> None:
        self.next: AsyncResult[float] = AsyncResult()

    def note(self, _mail_from: str, _recipients: tuple[str, ...], _content: bytes) -> None:
        self.next.set(time.time())


@contextmanager
def _listen(flags: Sequence[str]) -> Iterator[None]:
    command = [sys.executable, "-m", "geomail", "listen", *flags]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        time.sleep(3)
        try:
            yield
        finally:
            process.terminate()


def _command(made_of: tuple[str, ...]) -> list[str]:
    if len(made_of) == 3:
        return [*made_of]
    set_up, send = made_of
    return [sys.executable, "-c", _PYTHON.replace("SET_UP", set_up).replace("SEND", send)]


def _show(
    name: str, command: list[str], port: int, arrived: _Arrivals, args: argparse.Namespace
) -> None:
    took = []
    producer = subprocess.Popen(
        [*command, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with producer:
        try:
            took = [_send_one(producer, arrived, args.pause) for _ in range(_WARM + args.count)]
        except (ValueError, BrokenPipeError):
            producer.kill()
            said = (producer.stderr.read() if producer.stderr else "").strip().splitlines()
            print(f"{name:<16} left out: {said[-1] if said else 'it did not send'}")
            return
        assert producer.stdin is not None
        producer.stdin.close()
    took = sorted(took[_WARM:])
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"{name:<16} p50 {p50 * 1000:6.2f} ms   p99 {p99 * 1000:6.2f} ms", flush=True)


def _send_one(producer: "subprocess.Popen[str]", arrived: _Arrivals, pause_s: float) -> float:
    assert producer.stdin is not None
    assert producer.stdout is not None
    time.sleep(pause_s)
    arrived.next = AsyncResult()
    producer.stdin.write("\n")
    producer.stdin.flush()
    began = float(producer.stdout.readline())
    at = arrived.next.get(timeout=_PATIENCE_S)
    assert at is not None
    return at - began


if __name__ == "__main__":
    main()
