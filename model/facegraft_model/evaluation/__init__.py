"""How good a model is: scores by part against the true surfaces, leakage, swap error, predictability, and methods side by side."""
