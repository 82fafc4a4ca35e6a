"""InternVLA-M1: planner, vision expert, QFormer, diffusion actor, and the policy made of them."""
