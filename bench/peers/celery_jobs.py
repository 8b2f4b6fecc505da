"""Celery: a task that composes and sends through a kept smtplib connection.

REDIS_PORT push: makes a task of each line of the standard input. PORT CONNECTIONS REDIS_PORT POOL:
a worker with that many processes or greenlets, as Celery's guide on optimizing advises for many
short tasks: much prefetched, no results, no rate limits, no gossip, no events, early acknowledgment
(a worker that is killed loses what it had begun). Jobs are taken by kombu, one BRPOP each, of one
list (without priorities).
"""

import sys

if sys.argv[-1] == "gevent":
    from gevent import monkey

    monkey.patch_all()

import json
import queue
import smtplib

import mails
from celery import Celery
from celery.worker import state

app = Celery("bench")
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    broker_transport_options={"priority_steps": [0]},
    worker_prefetch_multiplier=128,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    worker_redirect_stdouts=False,
)
_idle: "queue.SimpleQueue[smtplib.SMTP]" = queue.SimpleQueue()


@app.task(name="deliver")  # type: ignore[untyped-decorator] # by a package that isn't there
def deliver(payload: str) -> None:
    """Send one mail over a connection that nobody uses at the moment, or a new one."""
    try:
        client = _idle.get_nowait()
    except queue.Empty:
        client = smtplib.SMTP("127.0.0.1", app.conf.bench_port, local_hostname="bench.example.com")
    mails.tuned(client, payload)
    _idle.put(client)


def push() -> None:
    """Make a task of each line."""
    with app.producer_or_acquire() as producer:
        for line in sys.stdin:
            deliver.apply_async((line.rstrip("\n"),), producer=producer)


def work(port: int, connections: int, pool: str) -> None:
    """Be a worker until SIGTERM, and tell how many mails that were."""
    app.conf.bench_port = port
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    try:
        app.worker_main(["worker", f"--pool={pool}", f"--concurrency={connections}", *quiet])
    finally:
        print(json.dumps({"all": sum(state.total_count.values())}))


if __name__ == "__main__":
    *numbers, act = sys.argv[1:]
    app.conf.broker_url = f"redis://127.0.0.1:{numbers[-1]}/0"
    if act == "push":
        push()
    else:
        work(int(numbers[0]), int(numbers[1]), act)
