"""Programs that produce jobs as those of the five systems do: what is in the folder `producers`."""

import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "producers"


def run(program: str, name: str, *arguments: object) -> str:
    """Run a producer to its end, and return what it printed."""
    command = [program, str(FOLDER / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
