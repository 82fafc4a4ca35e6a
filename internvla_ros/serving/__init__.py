"""The policy as a service: its wire protocol, a server, and a client that needs no PyTorch."""
