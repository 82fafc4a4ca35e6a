"""Benchmarks in bulk without ROS, and their reports."""
