"""Who measures: this process, processes on this machine, or actors on a Ray cluster."""

from fairmend.runs.workers.tasks import Done, InProcess, Task, Throughput, Workers

__all__ = ["Done", "InProcess", "Task", "Throughput", "Workers"]
