"""Start, watch and steer Triton: embedded, or in NVIDIA's container."""
