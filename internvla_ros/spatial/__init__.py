"""Where to act: boxes, points and traces, as values, as text and as pictures."""
