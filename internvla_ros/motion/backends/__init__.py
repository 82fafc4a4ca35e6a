"""What motion backends decide, without ROS: trajectories, MoveIt Servo's protocol, planning."""
