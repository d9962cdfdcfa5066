/**
 * Simulated machines as recordings, through `check`: a machine that kept every promise has no error that its plan did not order.
 *
 *     npx tsx tools/sim-check.ts                 seeds 1 to 500 of "mapping", 1 to 60 of "nvme"
 *     npx tsx tools/sim-check.ts mapping 17 17   one seed
 *
 * Exit code 1 on such an error, or where the analyzer says that a recording of all of a machine's life began in the middle of it.
 */
import { type RecordedScenario, recordedRun } from "../test/simulation/recorded-run.ts";

const [name, first, last] = process.argv.slice(2);
const runs: readonly (readonly [RecordedScenario, number, number])[] =
  name === "mapping" || name === "nvme"
    ? [[name, Number(first ?? 1), Number(last ?? first ?? 1)]]
    : [
        ["mapping", 1, 500],
        ["nvme", 1, 60],
      ];

let failed = 0;
let judged = 0;
for (const [scenario, from, to] of runs)
  for (let seed = from; seed <= to; seed++) {
    const { broken, checked, unordered } = await recordedRun(scenario, seed);
    if (broken !== undefined) continue; // the simulation's own tests say so
    judged++;
    const complaints = [...unordered];
    if (checked.unknownStart > 0) complaints.push(`seed ${seed}: ${checked.unknownStart} ends without a beginning`);
    if (checked.endNotRecorded > 0) complaints.push(`seed ${seed}: ${checked.endNotRecorded} ends without a name`);
    for (const complaint of complaints) process.stdout.write(`${scenario} ${complaint}\n`);
    failed += complaints.length;
  }
process.stdout.write(`${judged} recorded machines, ${failed} complaints\n`);
process.exit(failed === 0 ? 0 : 1);
