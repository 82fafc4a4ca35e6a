"""Robots without ROS drivers of their own: Franka over libfranka, WidowX AI over trossen_arm."""
