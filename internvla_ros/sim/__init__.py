"""The simulated table top: scenes, physics and rendering, a scripted expert, the data engine."""

import os

# Software rendering unless chosen otherwise; MuJoCo reads this when it is first imported.
os.environ.setdefault("MUJOCO_GL", "osmesa")
