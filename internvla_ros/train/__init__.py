"""Training: stage 1 (spatial grounding) and stage 2 (actions under spatial prompts, co-trained)."""
