"""Moving the tip: rigid-body geometry, kinematics and the Cartesian servo (no ROS, no torch)."""
