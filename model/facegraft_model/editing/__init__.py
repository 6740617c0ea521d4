"""Edit heads part by part: swap, interpolate, draw at random, and walk along principal components."""
