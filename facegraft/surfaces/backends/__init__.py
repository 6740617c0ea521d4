"""Ways to measure a signed distance, one a file; `facegraft.surfaces.distance.BACKENDS` lists them."""
