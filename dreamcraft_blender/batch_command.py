"""`blender --command dreamcraft batch ...`: the backend's batches without a window.

validate, run, status, cancel and retry are the backend's own commands, run as a child whose output and exit code pass
through; export-assets needs Blender itself and is done here (see `library`). Exit codes: see "Batches" in the
documentation.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import bpy

from . import batch_objects, library, preferences
from .batch_runs import ACTIONS, BatchRun, folder_for, following
from .client import Pump
from .launcher import Installation, clean_environment, find_installation
from .problems import Problem

USAGE = f"""usage: blender --command dreamcraft batch {{{",".join(ACTIONS)},export-assets}} MANIFEST [options]

Make many objects from a manifest: a folder of pictures, CSV or JSONL. Each command has --help.
"""
UNREACHABLE = 4
"""Exit code: no backend, or nothing that can run."""


def run(words):
    """One command line, without the word "batch"; returns the exit code. Raises `Problem`."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0 if words else 2
    if words[0] == "export-assets":
        return export(words[1:])
    if words[0] in ("export-request", "apply-result"):
        return batch_objects.run(words)
    if words[0] not in ACTIONS:
        sys.stderr.write(USAGE)
        return 2
    found = installation()
    if found is None:
        return failed(missing(), as_json="--json" in words)
    return passed_through([*found.command, "batch", *batch_objects.with_blender(words[0], words)])


def installation(chosen=""):
    """The backend: the one that is named here, in the preferences, installed, or on the PATH."""
    path = chosen or bpy.path.abspath(preferences.current().backend_path)
    return find_installation(path, preferences.installation_folder())


def missing():
    return Problem("not_installed", "The backend is not installed.", "Install it from the panel, or name it in the "
                   "extension's preferences.")  # fmt: skip


def passed_through(command):
    """Runs a child that shares our output; returns its exit code. It never outlives us if we are asked to end."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        # a group of its own: signals reach it once, from `forwarding`
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env=clean_environment(), process_group=None if os.name == "nt" else 0
        )
    except OSError as error:
        return failed(Problem("broken_installation", f"The backend cannot be started: {error.strerror or error}.",
                              "Repair the installation."))  # fmt: skip
    with forwarding(child):
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def forwarding(child):
    """What asks Blender to end is handed to the child, whose end then ends the command."""
    if os.name == "nt":  # the console tells both
        yield
        return

    def hand_on(number, _frame):
        with contextlib.suppress(OSError):
            child.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        yield
    finally:
        if child.poll() is None:
            child.kill()
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)


def failed(problem, *, as_json=False):
    """One line, and the code for what cannot be had."""
    if as_json:
        record = {"ok": False, "code": UNREACHABLE, "error": problem.message, "remedy": problem.remedy}
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        sys.stderr.write(f"{problem}\n")
    return UNREACHABLE


# --- the library ----------------------------------------------------------------------------------


def export(words):
    """Puts the results into an asset library."""
    parser = argparse.ArgumentParser(
        prog="blender --command dreamcraft batch export-assets",
        description="Put the results of a batch into a library for the Asset Browser; again adds only what is new.",
    )
    parser.add_argument("manifest", help="as for the other commands")
    parser.add_argument("--out", help="folder of the results (default: NAME-out beside the manifest)")
    parser.add_argument("--library", help="folder of the library (default: library, in the folder of the results)")
    parser.add_argument("--shard", type=int, default=library.SHARD, help="assets per .blend file")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="items whose id fits; repeatable")
    parser.add_argument("--backend", default="", help="the backend's Python, or the program dreamcraft3d")
    parser.add_argument("--json", action="store_true", help="one JSON object on the standard output")
    try:
        given = parser.parse_args(words)
    except SystemExit as end:
        return int(end.code or 0)
    if given.shard < 1:
        parser.print_usage(sys.stderr)
        return 2
    found = installation(given.backend)
    if found is None:
        return failed(missing(), as_json=given.json)
    try:
        status = status_of(found, Path(given.manifest), given.out, given.only)
        report = library.export(status, given.library, shard=given.shard, told=quiet if given.json else tell)
    except Problem as problem:
        code = {"busy": UNREACHABLE, "broken_installation": UNREACHABLE, "bug": 1}.get(problem.code, 2)
        if given.json:
            said = {"ok": False, "code": code, "error": problem.message, "remedy": problem.remedy}
            sys.stdout.write(json.dumps(said) + "\n")
        else:
            sys.stderr.write(f"{problem.log or problem}\n")
        return code
    sys.stdout.write((json.dumps(report.record) if given.json else report.sentence) + "\n")
    sys.stdout.flush()
    return 3 if report.failed else 0


def status_of(found: Installation, source: Path, out, only):
    """What the backend says about every item. Raises `Problem`."""
    options = ([] if out is None else ["--out", str(Path(out).absolute())]) + [w for o in only for w in ("--only", o)]
    run = BatchRun(found, "status", source.absolute(), options, folder=folder_for(Path(bpy.app.tempdir), source))
    pump = Pump()
    return pump.wait(pump.run(following(run)), seconds=600.0).record


def quiet(_):
    """For programs."""


def tell(text):
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
