"""From a field to triangle meshes: grids, extraction, correspondence, files."""
