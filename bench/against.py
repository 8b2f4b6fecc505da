"""This revision beside another one, by turns: is it slower, and by how much?

    python bench/against.py REV [--count 30000] [--runs 5] [--size 1024]

REV is anything that git knows as a commit. Its files are put into a temporary folder; nothing in
this checkout changes. Both deliver the same backlog to the same smtp-sink, each with a fresh
append-only Redis, and who goes first changes, so that a machine which grows slower slows both.
What is compared are medians of the rate and of the CPU time a mail, as ratios. Below 5 % nothing is
claimed; a rate that is 10 % lower, or CPU time that is 10 % higher, ends with status 1.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import stand

_HERE = Path(__file__).resolve().parents[1]
_CLAIMED, _SLOWER = 0.05, 0.10


def main() -> int:
    """Compare, print, and return the exit status."""
    args = _arguments()
    stand.need("smtp-sink")
    with tempfile.TemporaryDirectory(prefix="geomail-against-") as folder:
        _unpack(args.revision, Path(folder))
        stand.introduce(**vars(args))
        homes = {"this one": _HERE, args.revision: Path(folder)}
        runs: dict[str, list[stand.Run]] = {name: [] for name in homes}
        with stand.smtp_sink() as port:
            for number in range(args.runs):
                turns = list(homes) if number % 2 else list(reversed(homes))
                for name in turns:
                    runs[name].append(_run(port, args, name, homes[name]))
        return _judge(runs, args.revision)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("revision", metavar="REV")
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024)
    return parser.parse_args()


def _unpack(revision: str, folder: Path) -> None:
    """Put the package as `revision` has it into `folder`."""
    command = ["git", "-C", str(_HERE), "archive", "--format=tar", revision, "geomail"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as git:
        assert git.stdout is not None
        assert git.stderr is not None
        try:
            with tarfile.open(fileobj=git.stdout, mode="r|") as files:
                files.extractall(folder, filter="data")
        except tarfile.ReadError:
            said = git.stderr.read().decode().strip().splitlines()
            raise SystemExit(f"no revision {revision!r} here: {said[-1] if said else ''}") from None


def _run(port: int, args: argparse.Namespace, name: str, home: Path) -> stand.Run:
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, args.count, size=args.size)
        flags = ["--relay", f"smtp://127.0.0.1:{port}", "--redis", url]
        with stand.worker(folder, flags, home=home) as worker:
            run = stand.watch(queue, worker, args.count)
            print(f"{name:<12} {run.rate:>8,.0f} mails/s  {run.cpu_us:5.1f} µs", flush=True)
            worker.drain()
    return run


def _judge(runs: dict[str, list[stand.Run]], revision: str) -> int:
    ours, theirs = runs["this one"], runs[revision]
    rate = stand.median([run.rate for run in ours]) / stand.median([run.rate for run in theirs])
    cpu = stand.median([run.cpu_us for run in ours]) / stand.median([run.cpu_us for run in theirs])
    print(f"\nmedians of {len(ours)}, this one over {revision}:", end="")
    print(f" rate {rate:.3f}, CPU time a mail {cpu:.3f}: ", end="")
    is_slower = rate <= 1 - _SLOWER or cpu >= 1 + _SLOWER
    if is_slower:
        print("slower by 10 % or more")
    else:
        is_seen = abs(rate - 1) >= _CLAIMED or abs(cpu - 1) >= _CLAIMED
        print("not slower by 10 %" if is_seen else "no difference that this bench can see")
    return 1 if is_slower else 0


if __name__ == "__main__":
    sys.exit(main())
