"""The hand-built kernels with the vector and mathematics modules under them. Nothing here knows operators or graphs."""
