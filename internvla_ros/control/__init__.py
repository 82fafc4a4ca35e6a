"""Executing action chunks: anchoring, blending, holding (pure numpy, time passed in)."""
