// graphile-worker's worker: URL. The settings are those of its performance page and of its own perfTest.
import { Logger, run } from "graphile-worker";
import { stamp, tick } from "./tally.mjs";

const CONCURRENT_JOBS = 24;

await run({
  preset: {
    worker: {
      connectionString: process.argv[2],
      concurrentJobs: CONCURRENT_JOBS,
      maxPoolSize: CONCURRENT_JOBS + 1,
      localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      // Its perfTest silences each job's line by NO_LOG_SUCCESS.
      logger: new Logger(() => () => {}),
    },
  },
  taskList: {
    noop: () => tick(),
    stamp: ({ sent_at: sentAt }) => stamp(sentAt),
  },
});
