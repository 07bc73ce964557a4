"""Who runs it? The loops of one worker: claim, execute, finalize, and what keeps them alive."""
