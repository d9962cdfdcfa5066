/** Opens a recorded trace, checks it, and compares what other strategies would have cost: `dmalink check` and `compare` as a library. */
import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";
import { checkTrace, readRequests } from "dmalink/analysis";
import { compare } from "dmalink/replay";
import { bytesInput, openTrace } from "dmalink/trace";

const path = process.argv[2] ?? "examples/traces/strict-mix7030.dat.gz";
const bytes = await readFile(path); // a large one: fileInput(path, size, handle) reads what is needed
const source = bytesInput(path, path.endsWith(".gz") ? gunzipSync(bytes) : bytes);

const checked = await checkTrace(await openTrace(source)); // a trace is read once: open it for each question
console.log(`${checked.mappings} mappings followed, ${checked.liveAtEnd} live at the end`);
for (const { severity, rule, message } of checked.findings) console.log(`${severity} ${rule}: ${message}`);

const { strategies } = compare(await readRequests(await openTrace(source)));
for (const { name, invalidations, pteWrites } of strategies)
  console.log(`${name}: ${invalidations} invalidations, ${pteWrites} entry writes`);
