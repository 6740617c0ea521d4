"""The template's morph: heads as displacements of a template that are linear in the codes of their parts."""
