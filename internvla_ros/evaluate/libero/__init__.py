"""LIBERO, the simulated household tasks of the Franka arm, in an environment of its own."""
