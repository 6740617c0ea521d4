"""Models that ship with the package, a folder each, and where a run is found by its folder or such a name."""
