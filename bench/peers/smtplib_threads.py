"""smtplib in threads: one thread and one kept connection each, as its documentation allows."""

import json
import smtplib
import sys
import threading
import time


def main(port: int, connections: int, warm_s: float, timed_s: float) -> None:
    """Keep all connections busy, and tell what was done in the timed part."""
    content = sys.stdin.buffer.read()
    sent, is_over = [0] * connections, threading.Event()
    trouble: list[Exception] = []

    def deliver(number: int) -> None:
        try:
            with smtplib.SMTP("127.0.0.1", port, local_hostname="bench.example.com") as client:
                while not is_over.is_set():
                    client.sendmail("bench@example.com", ["demo@example.com"], content)
                    sent[number] += 1
        except (OSError, smtplib.SMTPException) as error:
            trouble.append(error)

    threads = [threading.Thread(target=deliver, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    while not all(sent) and not trouble:
        time.sleep(0.01)
    time.sleep(warm_s)
    before, began, cpu_s = sum(sent), time.monotonic(), time.process_time()
    time.sleep(timed_s)
    mails, seconds, cpu_s = (
        sum(sent) - before,
        time.monotonic() - began,
        time.process_time() - cpu_s,
    )
    is_over.set()
    for thread in threads:
        thread.join()
    if trouble:
        raise SystemExit(repr(trouble[0]))
    print(json.dumps({"mails": mails, "seconds": seconds, "cpu_s": cpu_s, "all": sum(sent)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
