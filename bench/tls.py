"""What TLS costs: a mail over a kept connection, and a handshake.

    python bench/tls.py [--part rate|handshake]... [--runs 5] [--count 50000] [--handshakes 400]

    rate        COUNT mails of 1 KB, concurrency 20, to geomail's sink: in clear, and over STARTTLS
                with a certificate that is verified. The two take turns; timed as in throughput.py,
                the handshakes of 20 connections among so many mails. TLS costs the host as much as
                the worker, and the host is Python too: where it is busier than the worker the rates
                are the host's, and it is the worker's CPU time a mail that tells what it could do.
    handshake   CPU time of the client for a full handshake and for a resumed one, made as a worker
                makes them (the same room, verified), to a host in another process. HANDSHAKES of
                each, by turns, under TLS 1.2 and 1.3, with ECDSA and with RSA keys, the certificate
                issued by the root itself or, as is usual, by an intermediate; medians. Timed
                from the wrapping of a connected socket to the end of the handshake. A session is
                taken after the greeting was read, for TLS 1.3 sends its tickets that late. Each
                handshake that should be resumed is asked whether it was.

Needs trustme for the certificates: `pip install trustme`.
"""

import ground  # noqa: F401, I001 - says what is missing
import geomail.__main__  # noqa: F401 - patches, before all else

import argparse
import ssl
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import stand
import trustme
from gevent import socket

import sinks
from geomail import config
from geomail.delivery.session.trust import Trust

_CONCURRENCY = 20
_KEYS = {"ECDSA": trustme.KeyType.ECDSA, "RSA": trustme.KeyType.RSA}
_VERSIONS = ("TLSv1_2", "TLSv1_3")
_BUSY = 0.95


@dataclass(frozen=True, slots=True)
class Papers:
    """A certificate for localhost, its key with it, and the authority that vouches for it."""

    cert: Path
    authority: Path


def main() -> None:
    """Run the parts that were asked for."""
    args = _arguments()
    stand.introduce(**vars(args), openssl=ssl.OPENSSL_VERSION)
    with tempfile.TemporaryDirectory(prefix="geomail-bench-") as folder:
        for part in args.part or _PARTS:
            _PARTS[part](Path(folder), args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--part", action="append", choices=tuple(_PARTS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--handshakes", type=int, default=400)
    return parser.parse_args()


def _papers(folder: Path, key: str, *, intermediates: int = 0) -> Papers:
    authority = issuer = trustme.CA(key_type=_KEYS[key])
    papers = Papers(folder / f"{key}.pem", folder / f"{key}-authority.pem")
    for _ in range(intermediates):
        issuer = issuer.create_child_ca(key_type=_KEYS[key])
    certificate = issuer.issue_cert("localhost", key_type=_KEYS[key])
    certificate.private_key_and_cert_chain_pem.write_to_path(str(papers.cert))
    authority.cert_pem.write_to_path(str(papers.authority))
    return papers


# ---- a mail


def _rate(folder: Path, args: argparse.Namespace) -> None:
    papers = _papers(folder, "ECDSA")
    with sinks.near() as plain, sinks.near(papers.cert, "starttls") as under_tls:
        clear = f'url = "smtp://localhost:{plain.port}"\n'
        url = f"smtp+starttls://localhost:{under_tls.port}"
        verified = f'url = "{url}"\nca_file = "{papers.authority}"\n'
        turns = {"plain": (plain, clear), "TLS": (under_tls, verified)}
        seen: dict[str, list[stand.Run]] = {name: [] for name in turns}
        for number in range(args.runs):
            for name in turns if number % 2 else reversed(turns):
                seen[name].append(_run(name, *turns[name], args))
    rates = {name: stand.median([run.rate for run in runs]) for name, runs in seen.items()}
    costs = {name: stand.median([run.cpu_us for run in runs]) for name, runs in seen.items()}
    print(f"rate       median of {args.runs}: plain {rates['plain']:,.0f} mails/s at", end="")
    print(f" {costs['plain']:.1f} µs, TLS {rates['TLS']:,.0f} at {costs['TLS']:.1f} µs;", end="")
    print(f" ratio of rates {rates['TLS'] / rates['plain']:.2f},", end="")
    print(f" of what the worker's core allows {costs['plain'] / costs['TLS']:.2f}\n", flush=True)


def _run(name: str, host: sinks.Host, relay: str, args: argparse.Namespace) -> stand.Run:
    before, used_s = host.taken(), host.cpu_s()[0]
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, args.count, size=1024)
        flags = ["--redis", url, "--concurrency", str(_CONCURRENCY)]
        with stand.worker(folder, flags, config=f"[relay.default]\n{relay}") as worker:
            run = stand.watch(queue, worker, args.count)
            worker.drain()
    host_us = (host.cpu_s()[0] - used_s) / args.count * 1e6
    if host.taken() - before != args.count:
        raise SystemExit(f"{args.count:,} were delivered, the sink took {host.taken() - before:,}")
    busy = run.rate * run.cpu_us / 1e6
    limit = "" if busy >= _BUSY else ", not the limit"
    told = f"worker {run.cpu_us:.1f} µs a mail ({busy:.0%} busy{limit}), host {host_us:.1f} µs"
    print(f"  {name:<6}{run.rate:>8,.0f} mails/s  {told}", flush=True)
    return run


# ---- a handshake


def _handshake(folder: Path, args: argparse.Namespace) -> None:
    for key, intermediates in product(_KEYS, (0, 1)):
        papers = _papers(folder, key, intermediates=intermediates)
        for version in _VERSIONS:
            with sinks.near(papers.cert, "implicit", version) as host:
                trust = _trust(host.port, papers)
                _shake(host.port, trust)  # what only the first one costs
                full, resumed = [], []
                for _ in range(args.handshakes):
                    trust.session = None
                    full.append(_shake(host.port, trust))
                    resumed.append(_shake(host.port, trust))
            long_us, short_us = stand.median(full) * 1e6, stand.median(resumed) * 1e6
            told = f"full {long_us:6.0f} µs, resumed {short_us:6.0f} µs"
            name = f"{version}  {key:<5}  {intermediates} intermediate"
            print(f"handshake  {name}  {told}, ratio {short_us / long_us:.2f}", flush=True)


def _trust(port: int, papers: Papers) -> Trust:
    settings = config.load({"--relay": [f"smtps://localhost:{port}"]}, {}, places=())
    relay = settings.relays["default"]
    relay = type(relay)(relay.name, relay.members, ca_file=str(papers.authority))
    return Trust("localhost", relay, is_verified=True)


def _shake(port: int, trust: Trust) -> float:
    """Make one handshake and return the CPU time it took; resumed where there is a session."""
    plain = socket.create_connection(("127.0.0.1", port))
    is_to_resume = trust.session is not None
    began = time.process_time()
    wrapped = trust.wrap(plain)
    wrapped.do_handshake()
    took_s = time.process_time() - began
    with wrapped:
        if bool(wrapped.session_reused) != is_to_resume:
            raise SystemExit(f"resumed: {wrapped.session_reused}, and should be: {is_to_resume}")
        wrapped.recv(1000)
        trust.keep(wrapped)
    return took_s


_PARTS = {"rate": _rate, "handshake": _handshake}


if __name__ == "__main__":
    main()
