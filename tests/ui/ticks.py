"""How long the extension's timer holds Blender up: `blender --python ticks.py`, in a window, with the double.

Goes through what a backend can do (nothing, work, stop by a signal, die, talk garbage) and writes a JSON line for each
to the file named by TICKS_OUT: durations of all ticks, and when the panel knew.
"""

import json
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import bpy

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "extension")]
import dreamcraft_blender  # noqa: E402
from dreamcraft_blender import session  # noqa: E402
from dreamcraft_blender.launcher import Installation, Launcher, read_state  # noqa: E402
from dreamcraft_blender.link import LinkState  # noqa: E402

OUT = Path(os.environ["TICKS_OUT"])
HOME = Path(tempfile.mkdtemp(prefix="dreamcraft-ticks-"))
COMMAND = (*shlex.split(os.environ["TICKS_PYTHON"]), str(ROOT / "tests" / "extension" / "double.py"))
SECONDS = float(os.environ.get("TICKS_SECONDS", "10"))


def launcher() -> Launcher:
    return Launcher(Installation(COMMAND, "double"), log=HOME / "serve.log")


def pid() -> int:
    state = read_state(HOME / "run" / "service.json")
    assert state is not None
    return state.pid


def phase(name: str, known=lambda: True) -> Iterator[float]:
    """Lets time pass and writes down what the ticks took meanwhile; `known`: the panel shows how it is."""
    session.ticks.clear()
    start, knew = time.monotonic(), None
    while time.monotonic() - start < SECONDS:
        if knew is None and known():
            knew = time.monotonic() - start
        yield 0.05
    took, worked = (sorted(column) for column in zip(*session.ticks, strict=True))
    record = {
        "phase": name,
        "ticks": len(took),
        "p50_ms": round(1000 * took[len(took) // 2], 3),
        "p99_ms": round(1000 * took[int(len(took) * 0.99)], 3),
        "max_ms": round(1000 * took[-1], 3),
        "own_p99_ms": round(1000 * worked[int(len(worked) * 0.99)], 3),
        "own_max_ms": round(1000 * worked[-1], 3),
        "known_after_s": None if knew is None else round(knew, 2),
        "state": session.get().link.state.value,
    }
    with OUT.open("a") as file:
        file.write(json.dumps(record) + "\n")


def script() -> Iterator[float]:
    current = session.get()
    current.make_launcher = launcher
    current.relaunch()
    yield from phase("no backend", lambda: current.link.state is LinkState.IDLE)
    scene = bpy.context.scene
    scene.dreamcraft.picture = bpy.data.images.load(str(ROOT / "examples" / "mug.png"))
    yield from phase("starting, mask", lambda: current.link.ready and current.mask.path is not None)
    bpy.ops.dreamcraft.generate()
    yield from phase("working", lambda: any(job.state == "running" for job in current.jobs.values()))
    os.kill(pid(), signal.SIGSTOP)
    yield from phase("stopped", lambda: current.link.state is LinkState.FAILED)
    os.kill(pid(), signal.SIGCONT)
    yield from phase("going on", lambda: current.link.ready)
    first = current.link.boot_id
    os.kill(pid(), signal.SIGKILL)
    yield from phase("killed, started again", lambda: current.link.ready and current.link.boot_id != first)
    os.environ["DOUBLE_MANNERS"] = "garbage"
    os.kill(pid(), signal.SIGKILL)
    yield from phase("garbage", lambda: current.link.state is LinkState.FAILED)
    os.kill(pid(), signal.SIGKILL)


def run(steps: Iterator[float]):
    def turn():
        try:
            return next(steps)
        except StopIteration:
            code = 0
        except Exception:  # noqa: BLE001 - shown, and told by the exit code
            traceback.print_exc()
            code = 1
        dreamcraft_blender.unregister()
        sys.stdout.flush()
        os._exit(code)

    return turn


os.environ["DREAMCRAFT3D_HOME"] = str(HOME)
os.environ["DOUBLE_SECONDS"] = "60"
session.measuring = True
dreamcraft_blender.register()
bpy.app.timers.register(run(script()), first_interval=3.0)
