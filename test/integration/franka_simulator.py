"""Runs franka-sim on one address alone, with the limits of the real robot. Usage: ADDRESS"""

import sys

from franka_sim import FrankaSimServer

if __name__ == "__main__":
    FrankaSimServer(host=sys.argv[1], enforce_motion_limits=True).start()
