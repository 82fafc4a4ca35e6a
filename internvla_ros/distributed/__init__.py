"""Tasks spread over workers, in this process, in others, or on a Ray cluster."""

from internvla_ros.distributed.workers import Workers, WorkersError, open_workers

__all__ = ["Workers", "WorkersError", "open_workers"]
