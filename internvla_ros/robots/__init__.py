"""Embodiments: the numbers and conventions of each robot, and its URDF."""
