"""A small Django project, whose settings the tests of this process use too."""
