"""Ways to measure a signed distance, one in each file; `facegraft.surfaces.distance.BACKENDS` lists them."""
