"""Routes by name, middleware, limits over the whole fleet, and work that isn't done in Python."""
