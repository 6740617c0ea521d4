"""Sources of heads: a class each, all in `source.KINDS`, which is where another one is added."""
