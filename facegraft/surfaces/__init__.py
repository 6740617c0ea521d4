"""Operations on surfaces, each once: for the pipeline that makes data and for the model that is scored on them.

Importing a module of this package needs numpy alone; libigl and scipy are loaded when they are used.
"""
