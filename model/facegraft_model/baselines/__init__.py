"""Other methods with the same interface, re-implemented from their papers, to be trained and scored on the same data."""
