/** Version 6 of trace.dat: one thing after another. */
import type { Cursor } from "./cursor.ts";
import { type DatParts, OPTION } from "./dat-parts.ts";
import { damaged, latencyTrace } from "./errors.ts";

export async function readSequence(parts: DatParts, cursor: Cursor): Promise<void> {
  await parts.headers(cursor);
  await parts.ftraceFormats(cursor);
  await parts.eventFormats(cursor);
  const symbols = await cursor.u32("the size of the symbols");
  parts.symbolsAt(parts.cursor(cursor.position), symbols);
  cursor.skip(symbols, "symbols");
  cursor.skip(await cursor.u32("the size of the print formats"), "print formats");
  await parts.commandLines(cursor);
  const cpusAt = cursor.offset;
  const cpus = await cursor.u32("the number of CPUs");
  parts.checkCpus(cpus, cpusAt);
  parts.file.cpus = cpus;
  let at = cursor.position;
  let kind = await cursor.text(10, "a section name");
  const instances: { offset: number; name: string }[] = [];
  if (kind === "options  \0") {
    for (;;) {
      const id = await cursor.u16("an option");
      if (id === OPTION.done) break;
      const size = await cursor.u32("the size of an option");
      if (size > cursor.left) cursor.skip(size, "an option");
      const next = cursor.position + size;
      if (id === OPTION.buffer)
        instances.push({ offset: await cursor.u64("the offset of a buffer"), name: await cursor.name("a buffer") });
      else await parts.option(cursor, id, size);
      cursor.position = next;
    }
    at = cursor.position;
    kind = await cursor.text(10, "a section name");
  }
  if (kind === "latency  \0") throw latencyTrace(at);
  if (kind !== "flyrecord\0") throw damaged(at, `expected "flyrecord", found ${JSON.stringify(kind)}`);
  const pageSize = parts.pageSize(at);
  await cpuTable(parts, cursor, "", cpus, pageSize);
  for (const { offset, name } of instances) {
    const instance = parts.cursor(offset);
    await instance.expect("flyrecord");
    await cpuTable(parts, instance, name, cpus, pageSize);
  }
}

async function cpuTable(parts: DatParts, cursor: Cursor, name: string, cpus: number, pageSize: number): Promise<void> {
  parts.checkCpus(cpus, cursor.offset);
  const buffer = parts.file.buffers.push(name) - 1;
  for (let cpu = 0; cpu < cpus; cpu++) {
    const offset = await cursor.u64("the offset of a CPU's pages");
    const size = await cursor.u64("the size of a CPU's pages");
    if (size > 0) parts.extent({ cpu, buffer, offset, size, chunked: false, pageSize });
  }
}
