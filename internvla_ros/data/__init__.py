"""Episodes, LeRobot datasets, grounding conversations and normalisation; needs no ROS."""
