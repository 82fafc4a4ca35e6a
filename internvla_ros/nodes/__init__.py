"""The ROS 2 nodes: parameters in, messages out. The only place that imports rclpy and messages."""
