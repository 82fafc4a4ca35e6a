"""SimplerEnv: simulated twins of the Google robot's and the WidowX's evaluations."""
