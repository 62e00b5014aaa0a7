"""What each operator means: one file a family, one registry, and the primitives that everything is lowered to."""
