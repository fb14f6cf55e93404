"""How good restored pictures are: metrics, tables and curves. docs/evaluation.md defines them."""
