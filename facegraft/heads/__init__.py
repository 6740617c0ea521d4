"""Sources of registered heads: folders and files of published models, and families that are computed from coefficients."""
