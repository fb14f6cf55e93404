"""Diffusion Schrodinger bridges: unpaired bridges by iterative proportional, or Markovian, fitting."""
