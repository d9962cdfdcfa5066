/** Kernel logs that were cut, mixed and garbled: always an answer, never a crash, in bounded time. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { checkTrace, readKernelLog } from "../../src/analysis/index.ts";
import { Random } from "../../src/base/index.ts";
import { bytesInput, KernelLogTrace, openTrace } from "../../src/trace/index.ts";
import { many } from "../effort.ts";

const FAULTS = join(import.meta.dirname, "../golden/faults");
const CASES = join(import.meta.dirname, "../golden/cases");
const logs = [
  ...readdirSync(FAULTS)
    .filter((file) => file.endsWith(".dmesg.txt.gz"))
    .map((file) => gunzipSync(readFileSync(join(FAULTS, file)))),
  ...["09-amdgpu-dmesg.txt", "59-journalctl.txt", "61-smmuv3-dmesg.txt", "62-smmuv2-dmesg.txt"].map((file) =>
    readFileSync(join(CASES, file)),
  ),
].map((bytes) => new TextDecoder().decode(bytes).split("\n").slice(-80));

const trace = (text: string | Uint8Array, size = 4096): KernelLogTrace => {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  };
  return new KernelLogTrace(chunks(), 64);
};

/** One change that a log may suffer. */
function garbled(lines: readonly string[], random: Random): string[] {
  const result = [...lines];
  for (let i = 1 + random.below(20); i > 0; i--) {
    const at = random.below(result.length);
    const line = result[at]!;
    const cut = random.below(line.length + 1);
    switch (random.below(7)) {
      case 0:
        result.splice(at, 1);
        break;
      case 1:
        result.splice(random.below(result.length), 0, line);
        break;
      case 2:
        result[at] = line.slice(0, cut);
        break;
      case 3:
        result[at] = line.slice(cut);
        break;
      case 4:
        result[at] = `${line.slice(0, cut)}${String.fromCodePoint(random.below(0x3000))}${line.slice(cut)}`;
        break;
      case 5:
        result[at] = line.replace(/[0-9a-f]+/gi, (digits) => (random.chance(1, 4) ? digits.repeat(5) : digits));
        break;
      default:
        result[at] = `${line}\r${result[random.below(result.length)]!}`;
    }
    if (result.length === 0) return ["x"];
  }
  return result;
}

test("a garbled log has an answer, however it is cut into chunks", async () => {
  const random = Random.fromSeed(11);
  for (let round = 0; round < many(30); round++) {
    const lines = garbled(logs[random.below(logs.length)]!, random);
    const text = lines.join("\n");
    const whole = await checkTrace(trace(text, 1 << 20));
    const pieces = await checkTrace(trace(text, 1 + random.below(40)));
    expect(pieces.findings).toEqual(whole.findings);
    expect(pieces.kernel).toEqual(whole.kernel);
    for (const { fault } of whole.findings) if (fault) expect(fault.count).toBeGreaterThan(0);
  }
});

test("a garbled log beside a trace has an answer", async () => {
  const random = Random.fromSeed(12);
  const recorded = gunzipSync(readFileSync(join(FAULTS, "fault-use-after-unmap.dat.gz")));
  for (let round = 0; round < many(15); round++) {
    const kernelLog = await readKernelLog(trace(garbled(logs[random.below(logs.length)]!, random).join("\n")));
    const options = random.chance(1, 2)
      ? { kernelLog }
      : { kernelLog, kernelLogOffsetNs: (random.below(2000) - 1000) * 1e6 };
    const { findings } = await checkTrace(await openTrace(bytesInput("t", recorded)), options);
    expect(findings.some(({ rule }) => rule === "device-fault")).toBe(true);
  }
});

test("bytes that are no text have an answer", async () => {
  const random = Random.fromSeed(13);
  for (let round = 0; round < many(25); round++) {
    const bytes = Uint8Array.from({ length: 4000 }, () => random.below(256));
    const { kernel } = await checkTrace(trace(bytes, 1 + random.below(300)));
    expect(kernel.faults).toBe(0);
  }
});

test("a flood of a hundred thousand lines is quick, and of bounded memory", async () => {
  const lines = Array.from(
    { length: 100_000 },
    (_, i) =>
      `[${String(i).padStart(5)}.000000] DMAR: [DMA Write NO_PASID] Request device [00:04.0] fault addr 0x${(i * 0x40_0000).toString(16)} [fault reason 0x05] x`,
  );
  const started = performance.now();
  const { findings, kernel } = await checkTrace(trace(lines.join("\n"), 1 << 18));
  expect(kernel.faults).toBe(100_000);
  expect(findings.length).toBeLessThanOrEqual(1001);
  expect(performance.now() - started).toBeLessThan(30_000);
});
