"""Other methods behind the same interface, so that all are trained and scored on the same data.

deepsdf and i3dmm are fields (`facegraft_model.method.Field`), re-implemented from their papers; linear is a mesh model.
"""
