"""How is a fleet steered? What operators ask for; the daemon's `commands` obey."""
