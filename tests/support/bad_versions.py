"""Versions of the runtime configuration that no worker can read, as databases may have them from before."""

from __future__ import annotations


def bad_version(version: int, weights: str = "{}", *, limits: str = "{}") -> str:
    """A statement that writes one past the rules of the table; both mappings are JSON."""
    return f"""
        DO $$ BEGIN
            ALTER TABLE asynctaskd.runtime_configs DISABLE TRIGGER runtime_configs_readable;
            INSERT INTO asynctaskd.runtime_configs (version, weights, limits)
            VALUES ({version}, '{weights}', '{limits}');
            ALTER TABLE asynctaskd.runtime_configs ENABLE TRIGGER runtime_configs_readable;
        END $$
    """
