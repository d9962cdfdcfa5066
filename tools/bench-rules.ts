/**
 * Do the rules of `dmalink check` find what is wrong, and only that? Faults are planted into clean recorded traces, and
 * precision and recall are printed per fault and per rule.
 *
 *     npm run bench:rules                      4 variants of every fault in every trace
 *     npm run bench:rules -- --variants 20 --seed 7
 *     npm run bench:rules -- --only "drop"     faults whose name contains it; prints what was missed
 *
 * Exit code 1 when a determined fault was missed, or an error was found that no fault explains.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { checkTrace, type Finding, RULES } from "../src/analysis/index.ts";
import { Random } from "../src/base/index.ts";
import { openTrace } from "../src/trace/index.ts";
import { readClean } from "./clean-trace.ts";
import { DEVICE_FAULTS } from "./device-faults.ts";
import { FAULTS, type Variant } from "./faults.ts";
import { MISUSE } from "./misuse-faults.ts";

const FOLDER = join(import.meta.dirname, "../test/golden/traces");
const args = process.argv.slice(2);
const option = (name: string): string | undefined => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined);
const variants = Number(option("--variants") ?? 4);
const seed = Number(option("--seed") ?? 1);
const only = option("--only");

async function findingsIn({ lines, deviceBits }: Variant): Promise<Finding[]> {
  const text = new TextEncoder().encode(`cpus=4\n${lines.join("\n")}\n`);
  const trace = await openTrace({
    name: "variant",
    size: text.length,
    read: async (at, length) => text.subarray(at, at + length),
  });
  return [...(await checkTrace(trace, deviceBits && { deviceBits })).findings];
}

const isError = ({ severity }: Finding): boolean => severity === "error";

/** The file cut somewhere, as bytes, read as far as it goes. */
async function errorsInCut(name: string, random: Random): Promise<Finding[]> {
  const whole = gunzipSync(readFileSync(join(FOLDER, name)));
  const bytes = whole.subarray(0, Math.floor(whole.length / 2) + random.below(Math.floor(whole.length / 2)));
  return errorsInBytes(name, bytes);
}

async function errorsInBytes(name: string, bytes: Uint8Array): Promise<Finding[]> {
  const input = {
    name,
    size: bytes.length,
    read: async (at: number, length: number) => bytes.subarray(at, at + length),
  };
  const trace = await openTrace(input, { bestEffort: true });
  const { findings } = await checkTrace(trace);
  return findings.filter(({ severity }) => severity === "error");
}

interface Score {
  planted: number;
  determined: number;
  found: number;
  foundDetermined: number;
  false: number;
}
const byFault = new Map<string, Score>();
const byRule = new Map<string, { right: number; wrong: number; expected: number; found: number }>();
const scoreOf = (fault: string): Score => {
  const score = byFault.get(fault) ?? { planted: 0, determined: 0, found: 0, foundDetermined: 0, false: 0 };
  byFault.set(fault, score);
  return score;
};
const ruleOf = (rule: string) => {
  const score = byRule.get(rule) ?? { right: 0, wrong: 0, expected: 0, found: 0 };
  byRule.set(rule, score);
  return score;
};

const random = Random.fromSeed(seed);
const texts = readdirSync(FOLDER).filter((name) => name.endsWith(".report.txt.gz"));
for (const name of texts) {
  const clean = readClean(gunzipSync(readFileSync(join(FOLDER, name))).toString());
  for (const fault of [...FAULTS, ...MISUSE, ...DEVICE_FAULTS]) {
    if (only && !fault.name.includes(only)) continue;
    for (let i = 0; i < variants; i++) {
      const variant = fault.plant(clean, random.fork(`${name} ${fault.name} ${i}`));
      if (!variant) break;
      const findings = await findingsIn(variant);
      // Advice and warnings are looked for where they are expected, and are no false ones elsewhere.
      const errors = findings.filter((one) => isError(one) || variant.expected.includes(one.rule));
      const score = scoreOf(fault.name);
      const { relation } = variant;
      const hit = errors.filter(
        ({ rule, mapping }) =>
          variant.expected.includes(rule) && (relation === undefined || mapping?.relation === relation),
      );
      const wrong = errors
        .filter(isError)
        .filter(({ rule }) => ![...variant.expected, ...variant.allowed].includes(rule));
      score.planted++;
      score.determined += variant.determined ? 1 : 0;
      score.found += hit.length > 0 ? 1 : 0;
      score.foundDetermined += hit.length > 0 && variant.determined ? 1 : 0;
      score.false += wrong.length;
      if (variant.determined && variant.expected.length === 1) {
        const rule = ruleOf(variant.expected[0]!);
        rule.expected++;
        rule.found += hit.length > 0 ? 1 : 0;
      }
      for (const { rule } of errors) ruleOf(rule)[wrong.some((one) => one.rule === rule) ? "wrong" : "right"]++;
      if (variant.determined && hit.length === 0) say("missed", name, fault.name, i, errors);
      if (wrong.length > 0) say("false", name, fault.name, i, wrong);
    }
  }
}
for (const name of readdirSync(FOLDER).filter((file) => /\.(dat|report\.txt|ftrace\.txt)\.gz$/.test(file))) {
  const fault = "nothing (every recording as it is)";
  if (only && !fault.includes(only)) break;
  const errors = await errorsInBytes(name, gunzipSync(readFileSync(join(FOLDER, name))));
  const score = scoreOf(fault);
  score.planted++;
  score.false += errors.length;
  for (const { rule } of errors) ruleOf(rule).wrong++;
  if (errors.length > 0) say("false", name, fault, 0, errors);
}
for (const name of readdirSync(FOLDER).filter((file) => file.endsWith(".dat.gz"))) {
  const fault = "cut the file (no fault)";
  if (only && !fault.includes(only)) break;
  for (let i = 0; i < variants; i++) {
    const errors = await errorsInCut(name, random.fork(`${name} cut ${i}`));
    const score = scoreOf(fault);
    score.planted++;
    score.false += errors.length;
    for (const { rule } of errors) ruleOf(rule).wrong++;
    if (errors.length > 0) say("false", name, fault, i, errors);
  }
}

function say(what: string, file: string, fault: string, i: number, findings: readonly Finding[]): void {
  console.error(
    `${what}: ${file}, ${fault}, variant ${i}: ${findings.map(({ rule, message }) => `${rule}: ${message}`).join(" | ") || "nothing"}`,
  );
}

const percent = (part: number, whole: number): string => (whole === 0 ? "-" : (part / whole).toFixed(3));
const table = (rows: readonly (readonly (string | number)[])[]): string => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  return rows
    .map((row) =>
      row.map((cell, i) => (i === 0 ? String(cell).padEnd(widths[i]!) : String(cell).padStart(widths[i]!))).join("  "),
    )
    .join("\n");
};
const total = [...byFault.values()].reduce((sum, { planted }) => sum + planted, 0);
console.log(`${total} variants of ${texts.length} recorded traces, seed ${seed}\n`);
console.log(
  table([
    ["planted", "variants", "determined", "found of these", "recall", "found of all", "false errors"],
    ...[...byFault].map(([name, score]) => [
      name,
      score.planted,
      score.determined,
      score.foundDetermined,
      percent(score.foundDetermined, score.determined),
      score.found,
      score.false,
    ]),
  ]),
);
console.log(
  `\n${table([
    ["rule", "expected alone", "found", "recall", "findings", "false", "precision"],
    ...RULES.filter(({ name, severity }) => severity === "error" || byRule.has(name)).map(({ name }) => {
      const { right, wrong, expected, found } = ruleOf(name);
      return [name, expected, found, percent(found, expected), right + wrong, wrong, percent(right, right + wrong)];
    }),
  ])}`,
);
const missed = [...byFault.values()].reduce((sum, score) => sum + score.determined - score.foundDetermined, 0);
const wrong = [...byFault.values()].reduce((sum, score) => sum + score.false, 0);
console.log(`\n${missed} determined faults missed, ${wrong} false errors`);
process.exitCode = missed + wrong > 0 ? 1 : 0;
