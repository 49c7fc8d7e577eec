"""The parts of a host, each reached by one module: xenstored, a QEMU's monitor, sysfs; and a sandbox of all three.

Every call has a deadline and raises `HostError` (the host said no, or cannot be reached) or `OutcomeUnknown`
(it may have happened). The sandbox serves xenstore's and QMP's own protocols on Unix sockets, so the clients here
do not know it from the real ones.
"""
