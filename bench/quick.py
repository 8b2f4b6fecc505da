"""The quick set: what a change may have made slower, in under five minutes.

    python bench/quick.py [--list]

Each line is one of the benches with few mails and few runs, as anybody could type it: enough to see
a tenth, too little to publish. `scripts/bench --against REV` compares with another revision, and
the long forms are in bench/README.md. `--list` shows the lines, and runs nothing.
"""

import subprocess
import sys
import time
from pathlib import Path

import stand

_HERE = Path(__file__).parent
_SET = (
    "throughput.py --count 30000 --runs 3",
    "throughput.py --count 20000 --runs 1 --kind both",
    "throughput.py --count 3000 --runs 1 --size 102400",
    "ladder.py --concurrency 10,1000 --processes 2 --runs 1",
    "where.py --part steps --count 20000 --runs 1",
    "idle.py --count 200 --rest 5",
    "compose.py",
    "conversation.py --count 20000 --runs 2 --traced 1000",
    "redis_cost.py --count 20000 --runs 2 --depth 50000 --only cost",
)


def main() -> int:
    """Run all, one after the other; return 1 when one of them failed."""
    parser = stand.parser(__doc__)
    parser.add_argument("--list", action="store_true")
    if parser.parse_args().list:
        print("\n".join(f"python bench/{line}" for line in _SET))
        return 0
    began, failed = time.monotonic(), []
    for line in _SET:
        print(f"\n=== python bench/{line}", flush=True)
        program, *flags = line.split()
        if subprocess.run([sys.executable, str(_HERE / program), *flags], check=False).returncode:
            failed.append(line)
    print(f"\n{len(_SET)} benches in {time.monotonic() - began:.0f} s", end="")
    print(f", FAILED: {'; '.join(failed)}" if failed else ", all went well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
