"""A worker that computes nothing: it speaks the worker's protocol and misbehaves as the job's name says."""

import json
import os
import signal
import sys
import threading
import time

lock = threading.Lock()
stop = threading.Event()
todo: list[dict] = []
news = threading.Condition()


def say(message: dict) -> None:
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def listen() -> None:
    global reason
    for line in sys.stdin:
        command = json.loads(line)
        if "quit" in command:
            os._exit(0)
        if "mask" in command:
            say({"masked": command["mask"]["id"], "ok": True, "matting": "given mask"})
        elif "stop" in command:
            if behaviour != "deaf":
                reason = command["stop"]
                stop.set()
        else:
            with news:
                todo.append(command)
                news.notify()
    os._exit(0)


def beat() -> None:
    while True:
        say({"beat": time.time()})
        time.sleep(0.1)


behaviour = reason = ""
threading.Thread(target=listen, daemon=True).start()
threading.Thread(target=beat, daemon=True).start()
say({"hello": os.getpid()})
while True:
    with news:
        while not todo:
            news.wait()
        command = todo.pop(0)
    order = command["run"]
    behaviour = order["request"]["name"]
    stop.clear()
    say({"event": "stage", "data": {"stage": "coarse_nerf", "total": 5}})
    if behaviour == "crash":
        os.abort()
    if behaviour == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "hang":
        threading.Event().wait()
    if behaviour == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if behaviour == "garbage":
        sys.stdout.write("not json\n[1]\n")
    outcome = {"outcome": "finished", "report": {}}
    if behaviour == "fail":
        outcome = {"outcome": "failed", "error": {"code": "InputError", "message": "no", "hint": "yes", "log_tail": []}}
    for step in range(5 if behaviour not in ("long", "deaf") else 1000):
        say({"event": "progress", "data": {"stage": "coarse_nerf", "step": step + 1, "total": 5, "eta": 1.0}})
        if stop.wait(0.02):
            outcome = {"outcome": "stopped", "reason": reason}
            break
    say({"done": outcome, "job": order["job"]})
