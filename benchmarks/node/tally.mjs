// What ../workers/tally.py says, from node.
import { writeSync } from "node:fs";

const target = Number(process.env.BENCH_TASKS ?? 0);
const report = process.env.BENCH_REPORT;
let count = 0;
let stamps = [];

// Date.now() knows milliseconds only.
const now = () => (performance.timeOrigin + performance.now()) / 1000;

const cpu = () => {
  const used = process.cpuUsage();
  return (used.user + used.system) / 1e6;
};

const say = (line) => writeSync(1, JSON.stringify(line) + "\n");

export const tick = () => {
  count += 1;
  if (count === 1) say({ event: "first", at: now(), cpu: cpu() });
  if (count === target) say({ event: "all", at: now() });
};

export const stamp = (sentAt) => {
  stamps.push([sentAt, now()]);
  if (report === "each") tellStamps();
};

const tellStamps = () => {
  if (stamps.length > 0) say({ event: "stamps", stamps });
  stamps = [];
};

if (report === "often") {
  setInterval(() => {
    say({ event: "count", pid: process.pid, count });
    tellStamps();
  }, 100);
}
