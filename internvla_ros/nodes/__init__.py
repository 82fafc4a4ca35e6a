"""The ROS 2 nodes: parameters in, messages out. The only place that imports rclpy and messages.

Each node is a process of its own that computes on one thread: before anything numeric is imported,
its libraries are told so.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
