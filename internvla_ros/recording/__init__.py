"""Keeping what happens: MCAP bags that Foxglove and `ros2 bag` open, and films; without ROS."""
