"""For authors of stages and plug-ins and for operators of clusters: fault injection, which facegraft's own fault matrix uses,
and test suites for plug-ins.

    poison    a wrapper of a stage, some of whose items raise, crash, hang, use too much memory or return NaN
    killer    SIGKILL and SIGSTOP of a run, its workers or everything, at random moments that a seed repeats; Dask's own chaos
    cluster   a scheduler and workers in separate processes, which can be killed one by one
    damage    flipped bits and truncated ends of any file
    disk      ENOSPC, EIO, EACCES on chosen writes of any process; a real small disk
    clock     a clock that jumps, and one that stands still until the test moves it
    distance  DistanceSuite: a pytest class that tests a distance backend
    hashes    hashes of a dataset's files, for comparison
    heads     HeadSourceSuite: a pytest class that tests a source of heads
    stage     StageSuite: a pytest class that tests a stage: same bytes when killed, with any number of workers
    twice     several commands started at the same instant

Nothing here is imported by the rest of facegraft. It needs Linux. See docs/faults.md.
"""
