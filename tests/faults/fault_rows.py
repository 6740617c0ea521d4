"""The rows of the fault matrix: what is done to a run, and what has to come of it. Every test of this folder names its row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`group`: rows of one group are shown together."""

    group: str
    fault: str
    expected: str


_RESUMED = "the same command resumes; same bytes as undisturbed; nothing committed is made again"
_GOES_ON = "the run goes on by itself; same bytes; nothing committed is made again"
_SAME = "same bytes"
_DISK = "non-zero exit, one line; only whole files under final names; a rerun completes with the same bytes"

KILL_EVERYTHING = Row("killed", "SIGKILL of everything: client, scheduler, workers, items", _RESUMED)
KILL_CLIENT = Row("killed", "SIGKILL of the client, the cluster lives", _RESUMED)
KILL_SCHEDULER = Row("killed", "SIGKILL of the scheduler", "one line that says so; " + _RESUMED)
KILL_WORKER = Row("killed", "SIGKILL of a worker below its nanny", _GOES_ON)
KILL_NANNY = Row("killed", "SIGKILL of a nanny (its worker dies too)", _GOES_ON)
KILL_REAL = Row("killed", "SIGKILL of everything in the real pipeline, again and again", _RESUMED)
STOP = Row("killed", "SIGSTOP of a worker or of everything for seconds, then SIGCONT", _GOES_ON + "; no item is blamed")
CHAOS = Row(
    "killed",
    "distributed.chaos: workers die at random, by exit, segfault or politely",
    "the same command, run until it exits 0: same bytes",
)

WORKERS = Row("order", "1, 2 and 8 workers", _SAME)
SHUFFLED = Row("order", "items planned in another order, shards made in another order, in one run or in several", _SAME)

POISON = Row(
    "poison",
    "items that raise, segfault, abort, exit, hang, sleep, take 10 GB, return NaN, are killed",
    "exactly those rejected with the right reason; no worker lost; a hanging item tried once, others twice at most, innocent ones once",
)
POISON_REAL = Row("poison", "the same in a real stage", POISON.expected)

DISK_EACH = Row("disk", "ENOSPC, EIO or EACCES on the n-th file operation, for every n of a run", _DISK)
DISK_WORKERS = Row("disk", "the same in worker processes, at random n", _DISK)
DISK_SMALL = Row("disk", "a real disk that is too small, in the real pipeline", _DISK)
POWER = Row(
    "disk",
    "power cut: what was not synced is lost",
    "every file is synced before it is renamed, and its folder after that",
)

CHANGED = Row(
    "resume",
    "changed parameter, input, seed, stage or version on resume",
    "refused, naming the differing fields; the folder is left as it was",
)
DAMAGED_RESUME = Row(
    "resume", "a shard or record damaged or taken away before a resume", "made again, and nothing else; same bytes"
)
READER = Row(
    "resume", "a flipped bit or cut end in any file of a dataset", "an error that names the file; never wrong data"
)

THREADS = Row(
    "machine",
    "no further thread can be started: in the client, in workers, in items, in all of them (ulimit -u)",
    "the run goes on, or ends in bounded time with one line that says so; the same command resumes; same bytes as undisturbed",
)
NO_CLUSTER = Row(
    "machine",
    "no local cluster can start: files, Dask's configuration, main script, working folder, /dev/shm, loopback interface",
    "non-zero exit, one line with the cause and the way out; no process left",
)
TRAINING_SIGNAL = Row(
    "training",
    "a signal, a second one, one to a single process of several",
    "a checkpoint is saved, all processes stop, nobody says trained; the same command resumes",
)
TRAINING_STEP = Row(
    "training", "a gradient that is not finite", "the step is skipped and counted; many in a row end the run"
)
TRAINING_RESUME = Row(
    "training",
    "too little memory; other parts of a batch on resume; more processes than GPUs",
    "one line with the remedy, which the resumed run accepts",
)

CLOCK = Row(
    "clock",
    "the clock jumps by hours or years, forwards and backwards, in every process",
    _GOES_ON + "; no item is blamed",
)
TWICE = Row(
    "twice",
    "several runs started on one folder at once",
    "one works, the others are refused or find it finished; no item is made twice",
)
PLANTED = Row("planted", "the matrix itself: classic faults planted in the product", "the row's check fails")
KIT = Row("planted", "the kit itself", "does what it says, in this process and in others")
