"""The options of sbatch: those of Slurm 22.05, and those that the launcher itself gives."""

_SBATCH = """
    account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment
    constraint container contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task
    deadline delay-boot dependency distribution error exclude exclusive export export-file
    extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags help hint hold ignore-pbs input job-name kill-on-invalid-dep
    licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network
    nice no-kill no-requeue nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu
    ntasks-per-node ntasks-per-socket open-mode output overcommit oversubscribe parsable partition
    power prefer priority profile propagate qos quiet reboot requeue reservation signal
    sockets-per-node spread-job switches test-only thread-spec threads-per-core time time-min tmp
    uid usage use-min-nodes verbose version wait wait-all-nodes wckey wrap
"""
KNOWN = frozenset(_SBATCH.split())

_LAUNCHER = "the launcher says this itself; take it out"
_FIELD = "is the profile's own field '{}'; give it there"
_JOB = "comes from the ablation's '{}'; set it there"

OURS = {
    **dict.fromkeys(
        ("array", "chdir", "dependency", "error", "get-user-env", "gid", "help",
         "ignore-pbs", "input", "job-name", "kill-on-invalid-dep", "ntasks", "ntasks-per-node",
         "open-mode", "output", "parsable", "quiet", "signal", "test-only", "uid", "usage",
         "verbose", "version", "wait", "wrap"),
        _LAUNCHER,
    ),
    **{name: _FIELD.format(name) for name in ("account", "constraint", "partition", "qos", "time")},
    "clusters": "is asked of every command alike: set SLURM_CLUSTERS in the shell, leave this out",
    "mem": _FIELD.format("memory"),
    "no-requeue": _FIELD.format("requeue"),
    "requeue": _FIELD.format("requeue"),
    "cpus-per-task": _JOB.format("job.cpus"),
    "nodes": _JOB.format("job.nodes"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task"), _JOB.format("job.gpus")),
}  # fmt: skip
