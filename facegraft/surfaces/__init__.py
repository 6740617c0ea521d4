"""Operations on surfaces that the pipeline (which makes the data) and the model (which is scored on them) share.

Importing a module of this package needs numpy alone; numba and scipy are loaded when they are used.
"""
