import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { bytesInput, fileInput, openTrace } from "./index.ts";

const text = new TextEncoder().encode(
  "     swapper-0  [000]  1.000000: dma_free: 0000:00:04.0 dma_addr=0 size=0 virt_addr=0 attrs=\n".repeat(3),
);
const file = () => ({
  name: "t",
  size: text.length,
  read: async (at: number, length: number) => text.subarray(at, at + length),
});

test.each([
  "x.dat",
  undefined,
  null,
  1,
  {},
  { name: "x.dat" },
  { name: "x", stream: 1 },
  { name: "x", size: Number.NaN, read: file().read },
])("%j is no source of a trace, and the message says what is one", async (input) => {
  await expect(openTrace(input as never)).rejects.toThrow(
    expect.objectContaining({
      code: "ERR_DMA_TRACE_SOURCE",
      errno: "EINVAL",
      message: expect.stringMatching(/is no source of a trace: .*is needed/),
    }),
  );
});

test("a trace that was read is not read again, and the message says what to do", async () => {
  const trace = await openTrace(file());
  let events = 0;
  for await (const batch of trace.batches()) events += batch.count;
  expect(events).toBe(3);
  await expect(trace.batches()[Symbol.asyncIterator]().next()).rejects.toThrow(
    expect.objectContaining({
      code: "ERR_DMA_TRACE_READ",
      message: expect.stringContaining("open it again with openTrace"),
    }),
  );
});

test.each(["bytesInput", "fileInput"])("a file is opened through %s", async (way) => {
  const folder = mkdtempSync(join(tmpdir(), "dmalink-open-"));
  try {
    const path = join(folder, "trace.txt");
    writeFileSync(path, text);
    const handle = await open(path);
    const source = way === "bytesInput" ? bytesInput(path, text) : fileInput(path, text.length, handle);
    let events = 0;
    for await (const batch of (await openTrace(source)).batches()) events += batch.count;
    expect(events).toBe(3);
    await handle.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
