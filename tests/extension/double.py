"""A double of the backend's service: the same wire over a real socket, jobs that pass in moments, and bad manners.

`python double.py serve` behaves like `dreamcraft3d serve`: it writes the state file below DREAMCRAFT3D_HOME. Bad
manners are asked for with DOUBLE_MANNERS: `garbage` (bytes that are no HTTP), `html`, `old` (protocol 0), `dies` (exit
7 at the start), `fails` (each job fails), `slow` (an answer takes a second). DOUBLE_SECONDS: how long a job takes.
"""

import hashlib
import json
import os
import secrets
import struct
import sys
import threading
import time
import zlib
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

STAGES = ("coarse_nerf", "neus", "geometry", "texture")
STEPS = 20

SCHEMA = {
    "$defs": {
        "Guidance": {
            "properties": {
                "batch": {"type": "integer", "minimum": 1, "default": 2, "description": "novel views per step"},
                "form": {"enum": ["x0", "sds"], "type": "string", "default": "x0", "description": "which gradient"},
            }
        },
        "Coarse": {
            "properties": {
                "steps": {"type": "integer", "minimum": 1, "default": 400, "description": "optimiser steps"},
                "lr": {"type": "number", "exclusiveMinimum": 0.0, "default": 0.01, "description": "learning rate"},
                "render_size": {
                    "anyOf": [{"type": "number"}, {"type": "array"}],
                    "default": 64,
                    "description": "side of the renders",
                },
                "guidance": {"$ref": "#/$defs/Guidance", "default": {}},
            }
        },
        "Reference": {
            "properties": {
                "elevation": {"type": "number", "minimum": -80.0, "maximum": 80.0, "default": 0.0},
                "estimate": {"type": "boolean", "default": True, "description": "guess depth"},
            }
        },
        "Shape": {
            "properties": {"turn": {"type": "boolean", "default": True, "description": "look for the side"}},
        },
        "Export": {
            "properties": {
                "target_faces": {"type": "integer", "minimum": 100, "maximum": 500000, "default": 10000},
                "texture_size": {"type": "integer", "minimum": 64, "maximum": 8192, "default": 1024},
            }
        },
    },
    "properties": {
        "preset": {"type": "string", "default": "custom"},
        "seed": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63, "default": 0, "description": "same seed"},
        "reference": {"$ref": "#/$defs/Reference", "default": {}},
        "shape": {"$ref": "#/$defs/Shape", "default": {}},
        "coarse_nerf": {"$ref": "#/$defs/Coarse", "default": {}},
        "export": {"$ref": "#/$defs/Export", "default": {}},
    },
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rgba: tuple[int, int, int, int]) -> bytes:
    """One colour."""
    rows = b"".join(b"\0" + bytes(rgba) * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def glb(*, faces: int = 12) -> bytes:
    """A box of 0.4 x 1.2 x 0.6 in glTF's frame (x, y up, z front), each side with its own corners and texture space."""
    points, normals, uvs, corners = [], [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            first = len(points)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                point = [0.0, 0.0, 0.0]
                point[axis], point[(axis + 1) % 3], point[(axis + 2) % 3] = sign, a, b
                points.append([p * half for p, half in zip(point, (0.2, 0.6, 0.3), strict=True)])
                length = 3**0.5  # one normal per vertex, not per side, as the backend writes it
                normals.append([p / length for p in point])
                uvs.append([(a + 1) / 2, (b + 1) / 2])
            order = (0, 1, 2, 0, 2, 3) if sign > 0 else (0, 2, 1, 0, 3, 2)
            corners += [first + i for i in order]
    picture = png(4, 4, (200, 40, 40, 255))
    blobs = [
        b"".join(struct.pack("<3f", *p) for p in points),
        b"".join(struct.pack("<3f", *n) for n in normals),
        b"".join(struct.pack("<2f", *u) for u in uvs),
        b"".join(struct.pack("<I", c) for c in corners[: faces * 3]),
        picture,
    ]
    binary, views = b"", []
    for blob in blobs:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(blob)})
        binary += blob + bytes(-len(blob) % 4)
    counts = (("VEC3", 24), ("VEC3", 24), ("VEC2", 24), ("SCALAR", faces * 3))
    kinds = (5126, 5126, 5126, 5125)
    accessors = [
        {"bufferView": i, "componentType": kinds[i], "count": count, "type": kind}
        for i, (kind, count) in enumerate(counts)
    ]
    document = {
        "asset": {"version": "2.0"},
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}]}
        ],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                    "baseColorTexture": {"index": 0},
                },
                "extensions": {"KHR_materials_specular": {"specularFactor": 0.0}},
            }
        ],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    total = 28 + len(text) + len(binary)
    return (
        struct.pack("<4sII", b"glTF", 2, total)
        + struct.pack("<I4s", len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(binary), b"BIN\0")
        + binary
    )


class World:
    """Everything that the double knows. Jobs survive a restart in a JSON file, as the real store's do."""

    def __init__(self, home: Path, manners: str = "", seconds: float = 1.0) -> None:
        self.home, self.manners, self.seconds = home, manners, seconds
        self.token = secrets.token_hex(16)
        self.boot_id = secrets.token_hex(8)
        self.uploads: dict[str, bytes] = {}
        self.lock = threading.RLock()
        self.file = home / "jobs.json"
        self.jobs: dict[str, dict[str, Any]] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def save(self) -> None:
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.jobs))
        partial.replace(self.file)

    def submit(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            for job in self.jobs.values():
                if job["request"].get("client_key") == request.get("client_key") is not None:
                    return job
            job = {
                "id": secrets.token_hex(6),
                "kind": request["kind"],
                "name": request.get("name"),
                "request": request,
                "state": "queued",
                "created": time.time(),
                "progress": 0.0,
                "ticked": None,
            }
            self.jobs[job["id"]] = job
            self.save()
            return job

    def tick(self) -> None:
        """Moves the first job of the queue on, by the time that has passed."""
        with self.lock:
            now = time.time()
            waiting = [job for job in self.jobs.values() if job["state"] in ("running", "queued")]
            for job in sorted(waiting, key=lambda item: (item["state"] != "running", item["created"]))[:1]:
                if job["state"] == "queued":
                    job["state"], job["ticked"] = "running", now
                job["progress"] += (now - job["ticked"]) / self.seconds
                job["ticked"] = now
                if self.manners == "fails" and job["progress"] > 0.3:
                    job["state"] = "failed"
                    job["error"] = {
                        "code": "object_lost",
                        "message": "The object was lost in stage neus.",
                        "hint": "Check the mask.",
                        "log_tail": "neus: empty level set",
                    }
                elif job["progress"] >= 1.0:
                    job["state"] = "finished"
                self.save()

    def view(self, job: dict[str, Any]) -> dict[str, Any]:
        done = min(0.999, job["progress"]) * len(STAGES)
        names = ["preview.webp"] if job["progress"] > 0 else []
        names += [f"stage-{stage}.glb" for stage in STAGES[: int(done)]]
        if job["state"] == "finished":
            names += ["result.glb", "report.json"]
        running = job["state"] in ("running", "paused") and job["progress"] > 0
        return {
            **{key: job[key] for key in ("id", "kind", "name", "state", "request", "created")},
            "stage": STAGES[int(done)] if running else None,
            "step": int(done % 1 * STEPS) if running else 0,
            "total": STEPS if running else 0,
            "eta": self.seconds * (1 - job["progress"]) if running else None,
            "position": 0 if job["state"] == "queued" else None,
            "error": job.get("error"),
            "artifacts": [{"name": name, "size": 1, "media_type": "application/octet-stream"} for name in names],
            "last_event": int(job["progress"] * 100),
        }

    def act(self, job: dict[str, Any], action: str) -> bool:
        """False if the job's state does not allow it."""
        allowed = {
            "cancel": (("queued", "running", "paused"), "cancelled"),
            "pause": (("queued", "running"), "paused"),
            "resume": (("paused",), "queued"),
            "retry": (("failed", "cancelled"), "queued"),
        }
        before, after = allowed[action]
        if job["state"] not in before:
            return False
        job["state"] = after
        job["ticked"] = time.time()
        self.save()
        return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: World

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def answer(self, value: Any, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), "application/json", status)

    def send(self, data: bytes, kind: str, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status: int, code: str, message: str, hint: str = "", field: str | None = None) -> None:
        self.answer({"error": {"code": code, "message": message, "hint": hint, "field": field}}, status)

    def do_GET(self) -> None:
        self.route("GET")

    def do_POST(self) -> None:
        self.route("POST")

    def do_DELETE(self) -> None:
        self.route("DELETE")

    def route(self, method: str) -> None:
        world = self.world
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if world.manners == "garbage":
            self.wfile.write(b"\x00\x01\x02 this is no HTTP at all\r\n\r\n")
            self.close_connection = True
            return
        if world.manners == "html":
            self.send(b"<html>A router's page</html>", "text/html")
            return
        if world.manners == "slow":
            time.sleep(1.0)
        if self.headers.get("Authorization") != f"Bearer {world.token}":
            self.fail(401, "unauthorized", "The token is wrong.")
            return
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")[1:]
        with world.lock:
            world.tick()
            self.resource(method, parts, parse_qs(url.query), body)

    def resource(self, method: str, parts: list[str], query: dict[str, list[str]], body: bytes) -> None:
        world = self.world
        match method, parts:
            case "GET", ["server"]:
                self.answer(server_record(world))
            case "GET", ["health"]:
                self.answer({"ok": True})
            case "POST", ["uploads"]:
                name = hashlib.sha256(body).hexdigest()
                world.uploads[name] = body
                self.answer({"id": name, "size": len(body)}, 201)
            case "POST", ["reference"]:
                self.send(png(64, 64, (10, 200, 10, 255)), "image/png", headers={"X-DreamCraft-Frame": "0.25 0.0 0.5"})
            case "GET", ["jobs"]:
                newest = sorted(world.jobs.values(), key=lambda job: -job["created"])
                self.answer({"jobs": [world.view(job) for job in newest]})
            case "POST", ["jobs"]:
                self.submit(json.loads(body))
            case "POST", ["shutdown"]:
                self.answer({"ok": True})
                threading.Thread(target=self.server.shutdown).start()
            case _, ["jobs", job, *rest] if job in world.jobs:
                self.job(method, world.jobs[job], rest, query)
            case _:
                self.fail(404, "not_found", "There is no such thing.", "Look at the list of jobs.")

    def submit(self, request: dict[str, Any]) -> None:
        if request.get("picture") not in self.world.uploads:
            self.fail(422, "unknown_upload", "There is no such upload.", "Send the picture again.", "picture")
            return
        self.answer(self.world.view(self.world.submit(request)), 201)

    def job(self, method: str, job: dict[str, Any], rest: list[str], query: dict[str, list[str]]) -> None:
        world = self.world
        match method, rest:
            case "GET", []:
                self.answer(world.view(job))
            case "DELETE", []:
                del world.jobs[job["id"]]
                world.save()
                self.answer({"ok": True})
            case "GET", ["events"]:
                number = world.view(job)["last_event"]
                since = int(query["since"][0])
                events = [
                    {"number": number, "time": time.time(), "type": "preview", "data": {"artifact": "preview.webp"}}
                ]
                self.answer({"events": events if number > since else [], "last": number, "state": job["state"]})
            case "GET", ["artifacts", name] if name.endswith(".glb"):
                self.send(glb(), "model/gltf-binary")
            case "GET", ["artifacts", "report.json"]:
                report = {"seed": job["request"]["settings"].get("seed", 0), "versions": {"dreamcraft3d": "0.1.0"}}
                self.answer({**report, "priors": ["bundled"]})
            case "GET", ["artifacts", _]:
                self.send(png(32, 32, (int(job["progress"] * 200) % 255, 90, 90, 255)), "image/webp")
            case "POST", [("cancel" | "pause" | "resume" | "retry") as action]:
                if world.act(job, action):
                    self.answer(world.view(job))
                else:
                    self.fail(409, "illegal", f"A job that is {job['state']} cannot {action}.", "Look at its state.")
            case _:
                self.fail(404, "not_found", "There is no such thing.")


def server_record(world: World) -> dict[str, Any]:
    protocol = 0 if world.manners == "old" else 1
    common = {"available": True, "values": {"coarse_nerf.steps": 220, "export.target_faces": 8000}}
    return {
        "product": "dreamcraft3d",
        "version": "0.1.0",
        "protocol": protocol,
        "protocol_min": protocol,
        "boot_id": world.boot_id,
        "pid": os.getpid(),
        "capabilities": ["generate"],
        "device": {"name": "Double", "kind": "cpu", "memory_free": 2**33, "memory_total": 2**34},
        "presets": [
            {"name": "preview", "title": "Preview", "minutes": 1.5, "memory_gib": 2.0, **common},
            {"name": "paper", "minutes": 300, "memory_gib": 20, "available": False, "reason": "it needs a GPU"},
        ],
        "schema": SCHEMA,
        "log": str(world.home / "service.log"),
    }


def start(world: World) -> ThreadingHTTPServer:
    """A listening server; the caller serves."""
    handler = type("WorldHandler", (Handler,), {"world": world})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    return server


def write_state(world: World, port: int) -> None:
    state = {
        "pid": os.getpid(),
        "boot_id": world.boot_id,
        "host": "127.0.0.1",
        "port": port,
        "token": world.token,
        "protocol": 1,
        "version": "0.1.0",
        "started": time.time(),
    }
    path = world.home / "run" / "service.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(state))
    partial.chmod(0o600)
    partial.replace(path)


def main() -> int:
    home = Path(os.environ["DREAMCRAFT3D_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    manners = os.environ.get("DOUBLE_MANNERS", "")
    with (home / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if manners == "dies":
        print("cannot import torch", flush=True)
        return 7
    world = World(home, manners, float(os.environ.get("DOUBLE_SECONDS", "1")))
    server = start(world)
    write_state(world, server.server_address[1])
    server.serve_forever(poll_interval=0.05)
    (home / "run" / "service.json").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
