"""For those who write stages and plug-ins or run clusters: faults on demand, with which facegraft's own fault matrix is made,
and the test suites that prove a plug-in right.

    poison    a stage of yours, some of whose items raise, crash, hang, eat memory or return NaN
    killer    SIGKILL and SIGSTOP of a run, its workers or everything, at random moments that a seed repeats; Dask's own chaos
    cluster   a scheduler and workers in processes of their own, to be killed one by one
    damage    flipped bits and cut ends of any file
    disk      ENOSPC, EIO, EACCES on chosen writes of any process; a real small disk
    clock     a clock that jumps, and one that stands still until the test moves it
    distance  DistanceSuite: a pytest class that proves a distance backend right
    hashes    the bytes of a dataset, to be compared
    stage     StageSuite: a pytest class that proves a stage right: same bytes when killed, with any number of workers
    twice     several commands started at the same instant

Nothing here is imported by the rest of facegraft. It needs Linux. See docs/faults.md.
"""
