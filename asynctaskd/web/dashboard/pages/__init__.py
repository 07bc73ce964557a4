"""The pages, one module each: they ask, and choose a template."""
