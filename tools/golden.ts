/**
 * Golden runner: dmalink against answers that the real kernel gave.
 *
 *     npm run golden                  the copies in test/golden
 *     npm run golden -- DIR...        every *.jsonl.gz in the given folders
 *
 * A line per file: name, operations, passed, first difference; what was not judged and why. Exit 1 on any difference or
 * unknown kind.
 */
import { statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { goldenFiles, isClean, judgeFile } from "../test/golden/runner.ts";

const top = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const given = process.argv.slice(2);
const folders = given.length > 0 ? given : [join(top, "test/golden")];
for (const folder of folders)
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    process.stderr.write(`${folder} is not a folder: name folders with golden files (*.jsonl.gz)\n`);
    process.exit(2);
  }
const files = folders.flatMap(goldenFiles);
if (files.length === 0) {
  process.stderr.write(`no *.jsonl.gz in ${folders.join(", ")}\n`);
  process.exit(2);
}
const width = Math.max(...files.map((file) => basename(file).length));
const rules: Record<string, number> = {};
const pending: Record<string, number> = {};
let [failures, operations, judged, unjudgedFiles, unjudgedLines] = [0, 0, 0, 0, 0];
for (const file of files) {
  const result = await judgeFile(file);
  const { verdict } = result;
  const name = basename(file).padEnd(width);
  if (result.pending !== undefined) {
    const reason = `${result.kind}: ${result.pending}`;
    pending[reason] = (pending[reason] ?? 0) + 1;
    unjudgedFiles++;
    process.stdout.write(`${name}  pending: ${result.pending}\n`);
  } else if (!verdict) process.stdout.write(`${name}  FAILED: ${result.failure}\n`);
  else {
    judged++;
    operations += verdict.operations;
    for (const [rule, times] of Object.entries(verdict.rules)) rules[rule] = (rules[rule] ?? 0) + times;
    const difference = verdict.difference ? `  line ${verdict.difference.line}: ${verdict.difference.message}` : "";
    const passed = verdict.operations === verdict.passed ? "all passed" : `${verdict.passed} passed`;
    process.stdout.write(`${name}  ${String(verdict.operations).padStart(6)} operations  ${passed}${difference}\n`);
    for (const [reason, lines] of Object.entries(verdict.notJudged)) {
      unjudgedLines += lines;
      process.stdout.write(`${" ".repeat(width)}  ${String(lines).padStart(6)} not judged: ${reason}\n`);
    }
  }
  if (!isClean(result)) failures++;
}
for (const [rule, times] of Object.entries(rules))
  process.stdout.write(`better than the kernel by rule, ${times} lines: ${rule}\n`);
for (const [reason, times] of Object.entries(pending))
  process.stdout.write(`pending, ${times} ${times === 1 ? "file" : "files"} of kind ${reason}\n`);
process.stdout.write(
  `${judged} files, ${operations} operations, ${failures} with differences; ${unjudgedFiles} files and ${unjudgedLines} lines pending\n`,
);
process.exit(failures > 0 ? 1 : 0);
