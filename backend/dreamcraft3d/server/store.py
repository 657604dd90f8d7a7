"""Jobs and their events in SQLite: what the service knows survives anything that can happen to its process.

One file in write-ahead mode. Every transition of a job and the event that reports it are one transaction, so that the
numbered events of a job tell exactly its history: 1, 2, 3 ... without gaps. Each thread has its own connection;
waiting for events costs nothing (a condition is notified on every write).

Timestamps are seconds since 1970 and never used for order.
"""

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamcraft3d.presets import STAGES
from dreamcraft3d.server.jobs import IllegalTransition, Input, Lifecycle, State, Wish, event_of, step

__all__ = ["Event", "Job", "Store", "UnknownJob"]

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, client_key TEXT UNIQUE, request TEXT NOT NULL, priority INTEGER NOT NULL,
    rank REAL NOT NULL, state TEXT NOT NULL, wish TEXT NOT NULL, losses INTEGER NOT NULL,
    created REAL NOT NULL, started REAL, finished REAL, last_event INTEGER NOT NULL DEFAULT 0,
    progress TEXT NOT NULL DEFAULT '{}', furthest INTEGER NOT NULL DEFAULT 0, error TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS queue ON jobs (state, priority DESC, rank);
CREATE INDEX IF NOT EXISTS newest ON jobs (rank DESC);
CREATE TABLE IF NOT EXISTS events (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, number INTEGER NOT NULL, time REAL NOT NULL,
    type TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;
"""
COLUMNS = "id, request, priority, rank, state, wish, losses, created, started, finished, last_event, progress, error"


SERVICE_DIED = {
    "code": "service_lost",
    "message": "The service ended again and again while it worked on this job.",
    "hint": "Close other programs, or choose a smaller preset.",
    "log_tail": [],
}
STEPS = 1 << 32
"""More than any stage has."""
MIN_GAP = 1e-6
"""Ranks closer than this are given out anew, before halving runs out of bits."""


class UnknownJob(LookupError):  # noqa: N818 - it says what it is
    """There is no job with this id."""


PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "wal_autocheckpoint = 10000")
"""Checkpoints are made by `Store.checkpoint`, off the requests' paths: they cost tens of milliseconds. The number of
pages is for stores on which nobody calls it."""


@dataclass(frozen=True)
class Job:
    """A stored job. `progress`: {stage, step, total, eta} of the last report; `error`: {code, message, hint,
    log_tail}."""

    id: str
    request: dict[str, Any]
    priority: int
    rank: float
    life: Lifecycle
    created: float
    started: float | None
    finished: float | None
    last_event: int
    progress: dict[str, Any]
    error: dict[str, Any] | None


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; numbers count from 1 without gaps."""

    number: int
    time: float
    type: str
    data: dict[str, Any]


class Store:
    """The database of one service; safe to use from several threads, not from several services."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._write = threading.RLock()
        self._news = threading.Condition()
        self._connections: list[sqlite3.Connection] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._write:
            self._connection.executescript(SCHEMA)
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        path.chmod(0o600)

    def close(self) -> None:
        """Closes every connection; waiting readers wake up."""
        with self._write:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self.wake()

    def checkpoint(self) -> None:
        """Moves what the log holds into the database; blocks nobody. To be called every few seconds."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # --- jobs ---------------------------------------------------------------------------------------

    def submit(
        self, request: Mapping[str, Any], *, priority: int = 0, client_key: str | None = None
    ) -> tuple[Job, bool]:
        """Stores a job durably and queues it; (job, true), or (the same key's job, false)."""
        with self._transaction() as db:
            if client_key is not None:
                known = db.execute(f"SELECT {COLUMNS} FROM jobs WHERE client_key = ?", (client_key,)).fetchone()
                if known is not None:
                    return _job(known), False
            job_id, now = uuid.uuid4().hex, time.time()
            rank = 1.0 + (db.execute("SELECT max(rank) FROM jobs").fetchone()[0] or 0.0)
            life = Lifecycle()
            db.execute(
                "INSERT INTO jobs (id, client_key, request, priority, rank, state, wish, losses, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (job_id, client_key, json.dumps(dict(request)), priority, rank, life.state, life.wish, 0, now),
            )
            self._append(db, job_id, "queued", {})
            return self._read(db, job_id), True

    def get(self, job_id: str) -> Job:
        """Raises ``UnknownJob``."""
        return self._read(self._connection, job_id)

    def page(self, *, state: State | None = None, limit: int = 100, before: float | None = None) -> list[Job]:
        """Newest first; `before` is the rank of the last job of the page before."""
        where, values = ["1"], list[Any]()
        if state is not None:
            where.append("state = ?")
            values.append(state.value)
        if before is not None:
            where.append("rank < ?")
            values.append(before)
        query = f"SELECT {COLUMNS} FROM jobs WHERE {' AND '.join(where)} ORDER BY rank DESC LIMIT ?"
        return [_job(row) for row in self._connection.execute(query, (*values, limit))]

    def count(self, state: State | None = None) -> int:
        """How many jobs there are, in a state or at all."""
        if state is None:
            return int(self._connection.execute("SELECT count(*) FROM jobs").fetchone()[0])
        return int(self._connection.execute("SELECT count(*) FROM jobs WHERE state = ?", (state.value,)).fetchone()[0])

    def position(self, job: Job) -> int | None:
        """How many jobs come before a queued one; None for others."""
        if job.life.state is not State.QUEUED:
            return None
        query = "SELECT count(*) FROM jobs WHERE state = ? AND (priority > ? OR (priority = ? AND rank < ?))"
        values = (State.QUEUED.value, job.priority, job.priority, job.rank)
        return int(self._connection.execute(query, values).fetchone()[0])

    def reorder(self, job_id: str, *, before: str | None) -> Job:
        """Moves a queued job directly before another queued one (taking over its priority), or to the end.

        Raises ``UnknownJob``, ``IllegalTransition``.
        """
        with self._transaction() as db:
            job = self._read(db, job_id)
            other = None if before is None else self._read(db, before)
            if job.life.state is not State.QUEUED or (other is not None and other.life.state is not State.QUEUED):
                raise IllegalTransition("Only jobs that wait can change places.")
            if other is None:
                priority, low = job.priority, db.execute("SELECT max(rank) FROM jobs").fetchone()[0]
                rank = low + 1.0
            else:
                priority = other.priority
                query = "SELECT max(rank) FROM jobs WHERE state = ? AND priority = ? AND rank < ? AND id != ?"
                above = db.execute(query, (State.QUEUED.value, priority, other.rank, job_id)).fetchone()[0]
                rank = 0.5 * ((other.rank - 1.0 if above is None else above) + other.rank)
                if other.rank - rank < MIN_GAP:
                    self._spread(db)
                    rank = self._read(db, other.id).rank - 0.5
            db.execute("UPDATE jobs SET priority = ?, rank = ? WHERE id = ?", (priority, rank, job_id))
            return self._read(db, job_id)

    def paused_for(self, reason: str) -> list[tuple[str, float]]:
        """Jobs that the service paused for this reason, and since when."""
        query = (
            "SELECT jobs.id, events.time FROM jobs JOIN events ON job = id AND number = last_event "
            "WHERE state = ? AND type = 'paused' AND data ->> 'reason' = ? ORDER BY rank"
        )
        return list(self._connection.execute(query, (State.PAUSED.value, reason)))

    def delete(self, job_id: str) -> None:
        """Forgets a job that does not run. Raises ``UnknownJob``, ``IllegalTransition``."""
        with self._transaction() as db:
            if self._read(db, job_id).life.state is State.RUNNING:
                raise IllegalTransition("A job that is running cannot be deleted; cancel it first.")
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    # --- transitions --------------------------------------------------------------------------------

    def apply(
        self,
        job_id: str,
        event: Input,
        data: Mapping[str, Any] | None = None,
        *,
        error: Mapping[str, Any] | None = None,
    ) -> Job:
        """A transition and the event that reports it, together. `data` goes into the event.

        Raises ``UnknownJob``, ``IllegalTransition``.
        """
        with self._transaction() as db:
            job = self._read(db, job_id)
            life = step(job.life, event)
            if life == job.life:
                return job
            error = error if life.state is State.FAILED else None
            self._save(db, job_id, life, error)
            if (reported := event_of(job.life, life)) is not None:
                self._append(db, job_id, reported, {**(data or {}), **(error or {})})
            return self._read(db, job_id)

    def claim_next(self) -> Job | None:
        """Takes the first job of the queue into `running`."""
        with self._transaction() as db:
            query = "SELECT id FROM jobs WHERE state = ? ORDER BY priority DESC, rank LIMIT 1"
            row = db.execute(query, (State.QUEUED.value,)).fetchone()
            if row is None:
                return None
            job = self._read(db, row[0])
            self._save(db, job.id, step(job.life, Input.CLAIM), None)
            db.execute("UPDATE jobs SET started = coalesce(started, ?) WHERE id = ?", (time.time(), job.id))
            self._append(db, job.id, "started", {})
            return self._read(db, job.id)

    def recover(self) -> list[Job]:
        """At the start of a service: what was running when the last one died has lost its worker."""
        running = self.page(state=State.RUNNING, limit=1_000_000)
        return [
            self.apply(job.id, Input.LOSE, {"reason": "the service stopped"}, error=SERVICE_DIED) for job in running
        ]

    # --- events -------------------------------------------------------------------------------------

    def add_event(
        self, job_id: str, kind: str, data: Mapping[str, Any], *, progress: Mapping[str, Any] | None = None
    ) -> None:
        """Appends an event; `progress` also becomes the job's, and makes up for losses if it got further than ever.

        Raises ``UnknownJob``.
        """
        with self._transaction() as db:
            self._read(db, job_id)
            if progress is not None:
                query = (
                    "UPDATE jobs SET progress = ?1, losses = iif(?2 > furthest, 0, losses), "
                    "furthest = max(?2, furthest) WHERE id = ?3"
                )
                db.execute(query, (json.dumps(dict(progress)), distance(progress), job_id))
            self._append(db, job_id, kind, data)

    def events(self, job_id: str, *, since: int = 0, limit: int = 1000) -> list[Event]:
        """Events with numbers above `since`, in order. Raises ``UnknownJob``."""
        query = "SELECT number, time, type, data FROM events WHERE job = ? AND number > ? ORDER BY number LIMIT ?"
        rows = self._connection.execute(query, (job_id, since, limit)).fetchall()
        if not rows:
            self.get(job_id)
        return [Event(number, when, kind, json.loads(data)) for number, when, kind, data in rows]

    def wait(self, job_id: str, *, since: int, seconds: float) -> None:
        """Returns when the job has an event above `since`, is gone, or the time is up."""
        deadline = time.monotonic() + seconds
        with self._news:
            while self._last_event(job_id) <= since and (left := deadline - time.monotonic()) > 0.0:
                self._news.wait(left)

    def wake(self) -> None:
        """Wakes everybody who waits."""
        with self._news:
            self._news.notify_all()

    # --- inside -------------------------------------------------------------------------------------

    @property
    def _connection(self) -> sqlite3.Connection:
        known: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if known is None:
            known = sqlite3.connect(self._path, isolation_level=None, timeout=30.0, check_same_thread=False)
            for pragma in PRAGMAS:
                known.execute(f"PRAGMA {pragma}")
            self._local.connection = known
            self._connections.append(known)
        return known

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._write:
            db = self._connection
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk has rolled back already
                    db.execute("ROLLBACK")
                raise
        self.wake()

    def _read(self, db: sqlite3.Connection, job_id: str) -> Job:
        row = db.execute(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise UnknownJob(job_id)
        return _job(row)

    def _save(self, db: sqlite3.Connection, job_id: str, life: Lifecycle, error: Mapping[str, Any] | None) -> None:
        finished = time.time() if life.state.over else None
        db.execute(
            "UPDATE jobs SET state = ?, wish = ?, losses = ?, finished = ?, error = ? WHERE id = ?",
            (life.state, life.wish, life.losses, finished, None if error is None else json.dumps(dict(error)), job_id),
        )

    def _spread(self, db: sqlite3.Connection) -> None:
        """Whole numbers for ranks, in the same order."""
        db.execute(
            "UPDATE jobs SET rank = place "
            "FROM (SELECT id AS other, row_number() OVER (ORDER BY rank) AS place FROM jobs)"
            " WHERE id = other"
        )

    def _append(self, db: sqlite3.Connection, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
        query = "UPDATE jobs SET last_event = last_event + 1 WHERE id = ? RETURNING last_event"
        number = db.execute(query, (job_id,)).fetchone()[0]
        values = (job_id, number, time.time(), kind, json.dumps(dict(data)))
        db.execute("INSERT INTO events (job, number, time, type, data) VALUES (?, ?, ?, ?, ?)", values)

    def _last_event(self, job_id: str) -> int:
        row = self._connection.execute("SELECT last_event FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return 1 << 62 if row is None else int(row[0])


def distance(progress: Mapping[str, Any]) -> int:
    """How far a job has got: stages in their order, and steps."""
    stage = progress.get("stage")
    place = STAGES.index(stage) if stage in STAGES else len(STAGES)
    return place * STEPS + int(progress.get("step", 0))


def _job(row: tuple[Any, ...]) -> Job:
    job_id, request, priority, rank, state, wish, losses, created, started, finished, last, progress, error = row
    life = Lifecycle(State(state), Wish(wish), losses)
    return Job(
        job_id, json.loads(request), priority, rank, life, created, started, finished, last, json.loads(progress),
        None if error is None else json.loads(error),
    )  # fmt: skip
