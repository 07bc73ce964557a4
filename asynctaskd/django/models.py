"""No models: Django tells an app of migrations only where it finds this module."""
