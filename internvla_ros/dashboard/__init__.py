"""The web page that shows what the robot sees, plans and does, and takes instructions.

Everything about it but the messages: nodes/dashboard_node.py feeds it.
"""
