// Creates graphile-worker's tables: URL.
import { runMigrations } from "graphile-worker";

await runMigrations({ connectionString: process.argv[2] });
