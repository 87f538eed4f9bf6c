"""Flamegraphs of the node: what its two processes and the kernel spend their time on.

    sampler (bcc_backend, perf_backend) -> Sample   stacks with time and thread
    pyspy -> Timeline                               what Python ran on a thread at a time
    merge                                           the two made one, leaves without frame
                                                    pointers put where they belong
    fold -> svg, speedscope                         what is written; record does all of it

Nothing here speaks to the data plane: processes are looked at from outside, by their ids.
"""
