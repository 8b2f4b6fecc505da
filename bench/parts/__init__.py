"""The parts of hosts.py, a file each: `run(args)`, with what is measured at its head."""
