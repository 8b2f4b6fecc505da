"""Tasks that harm themselves, each other and whoever runs them, as a module to be imported."""

TASKS = """
import multiprocessing, os, signal, socket, subprocess, sys, threading, time
import geomail

@geomail.task
def noop(params):
    return None

@geomail.task
def pid(params):
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if params == "fail":
        raise ValueError

@geomail.task
def fork_and_return(params):
    os.fork()

@geomail.task
def close_all(params):
    os.closerange(0, 1000)

@geomail.task
def close_and_open(params):
    os.closerange(3, 1000)
    for _ in range(20):
        os.open(params, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

@geomail.task
def write_everywhere(params):
    for fd in range(3, 30):
        try:
            os.write(fd, params.encode())
        except OSError:
            pass

@geomail.task
def flood_everywhere(params):
    for fd in range(3, 30):
        try:
            os.write(fd, b"x" * 10_000_000)
        except OSError:
            pass

@geomail.task
def say(params):
    sys.stdout.write(params["text"] * params["times"])
    print("and an error", file=sys.stderr)

@geomail.task
def spin(params):
    began = time.monotonic()
    while time.monotonic() - began < params:
        pass

@geomail.task
def threads(params):
    threading.Thread(target=time.sleep, args=(600,)).start()

@geomail.task
def read(params):
    assert sys.stdin.read() == "" and os.read(0, 1) == b""

@geomail.task
def environment(params):
    with open(params, "w") as file:
        file.write("\\n".join(os.environ))

@geomail.task
def children(params):
    # one in our group, one in a session of its own
    for new_session in (False, True)[: params["sessions"]]:
        child = subprocess.Popen(["sleep", "600"], start_new_session=new_session)
        with open(params["pids"], "a") as file:
            file.write(f"{child.pid}\\n")
    with open(params["pids"], "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(params["sleep"])

@geomail.task
def copy(params):
    with open(params[0]) as source, open(params[1], "w") as target:
        target.write(source.read())

@geomail.task
def terminate(params):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()

@geomail.task
def crash(params):
    os.kill(os.getpid(), signal.SIGSEGV)

@geomail.task
def freeze(params):
    os.kill(os.getpid(), signal.SIGSTOP)

@geomail.task
def end_template(params):
    os.kill(os.getppid(), params)
    time.sleep(600)

@geomail.task
class Broken:
    def __init__(self):
        raise OSError("no database")
    def _task_mail(self, params): pass

class Loud(Exception):
    def __str__(self):
        raise ValueError("not even this")

@geomail.task
def loud(params):
    raise Loud
"""
