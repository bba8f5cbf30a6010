"""What a student costs: parameters, GMACs, memory and latency."""
